"""Files that say when requests come: the weights of a day's hours, and a recorded trace.

A day is 24 numbers, such as studies in each hour as a PACS counts them. A trace is one JSON object
a line with `timestamp` in milliseconds and, of language models, `input_length` and `output_length`
in tokens (as https://github.com/kvcache-ai/Mooncake publishes them); other members are ignored.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from bench.core.errors import DataError
from bench.core.paths import user_path
from bench.core.separated import NUMBER, decoded, unmarked
from bench.results.reader import read_bytes

NUM_HOURS = 24
_DIGEST = 8
_MS_PER_S = 1000.0
_MOST_HOUR = 1e12
_Tokens = Annotated[int, msgspec.Meta(ge=1, le=10**7)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """One request of the schedule."""

    at_s: float
    """From the start of the run."""
    prompt_tokens: int | None = None
    output_tokens: int | None = None


class _Line(msgspec.Struct, frozen=True):
    timestamp: Annotated[float, msgspec.Meta(ge=0, le=1e15)]
    input_length: _Tokens | None = None
    output_length: _Tokens | None = None


def day_of(name: str, *, what: str) -> tuple[tuple[float, ...], str]:
    """Weights of 24 hours from midnight on, and how the file is named in rows."""
    path, text, source = _read(name, what=what)
    cells = [cell for cell in re.split(r"[\s,;]+", text) if cell]
    hours = tuple(float(cell) for cell in cells if NUMBER.fullmatch(cell))
    if len(hours) != len(cells) or len(hours) != NUM_HOURS:
        wrong = next((cell for cell in cells if not NUMBER.fullmatch(cell)), None)
        has = f"{wrong[:40]!r}" if wrong is not None else f"{len(hours)} numbers"
        raise DataError(
            f"{path}: has {has}; a day is {NUM_HOURS} numbers, one for each hour from midnight on, "
            "decimals with a point"
        )
    if min(hours) < 0.0 or not 0.0 < max(hours) <= _MOST_HOUR:
        raise DataError(f"{path}: an hour of a day weighs 0 or more, and one of them more than 0")
    return hours, source


def trace_of(name: str, *, what: str) -> tuple[tuple[Arrival, ...], str]:
    """Recorded requests, the first at 0, and how the file is named in rows."""
    path, text, source = _read(name, what=what)
    found: list[Arrival] = []
    first_ms = last_ms = 0.0
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            read = msgspec.json.decode(line, type=_Line)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DataError(
                f"{path}: line {number} is not a request, such as "
                f'{{"timestamp": 1250, "input_length": 900, "output_length": 80}}: {error}'
            ) from error
        first_ms = read.timestamp if not found else first_ms
        if found and read.timestamp < last_ms:
            raise DataError(
                f"{path}: line {number}: time goes back, from {last_ms:.15g} to "
                f"{read.timestamp:.15g} ms; sort the lines by timestamp"
            )
        last_ms = read.timestamp
        found.append(
            Arrival(
                at_s=(last_ms - first_ms) / _MS_PER_S,
                prompt_tokens=read.input_length,
                output_tokens=read.output_length,
            )
        )
    if last_ms <= first_ms:
        raise DataError(f"{path}: a trace needs requests at two times or more")
    return tuple(found), source


def _read(name: str, *, what: str) -> tuple[Path, str, str]:
    path = user_path(name.strip(), what=what)
    if not path.is_file():
        order = "; a rate goes before the file: day:800/day:FILE" if ":" in name else ""
        raise DataError(f"{what} {name!r}: there is no such file{order}")
    data = read_bytes(path)
    text = decoded(unmarked(data, what=str(path)), what=str(path))
    return path, text, f"{path.name}#{hashlib.sha256(data).hexdigest()[:_DIGEST]}"
