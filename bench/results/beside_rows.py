"""What lies beside the rows of a run: every step, loss and telemetry sample, and operator profiles.

`<stem>.samples.jsonl.gz` holds one line of JSON per trial, each its own gzip member, so that a
crash costs at most the last one and any gzip tool reads the file. Step times keep warm-up steps
apart from those of the window. What a row says can be computed again from here; the row does not
need it. A figure that is not finite (a loss that diverged) is kept as the text nan, inf or -inf,
because JSON has no such numbers.

`<stem>.requests.jsonl.gz` holds in the same form every request of each live run of a served trial,
times in seconds from its start.

`<stem>.loadgen/` holds the logs of MLPerf's LoadGen, a folder a trial.

`<stem>.operators.json` holds one profile for each configuration and device, from a separate,
untimed run: which classes of operators a step spends its time in, with FLOPs and bytes from shapes.
The times are shares; how long a step takes is what the rows say.

`<stem>.failures.txt` holds what the process of each failed trial wrote, tracebacks among it.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from bench.core.errors import DataError
from bench.hardware.operators import Operators, total
from bench.results.reader import read_bytes
from bench.results.whole_files import AppendFile, write_document

KEYS = ("config_hash", "device", "trial", "attempt")
"""What ties a line to its row."""

_LOG = logging.getLogger(__name__)
_PIECE_BYTES = 1 << 16
_GZIP_WINDOW_BITS = 31
"""zlib: 15 bits of window, plus 16 for a gzip header: https://zlib.net/manual.html#Advanced"""


def append_samples(path: Path, record: Mapping[str, object]) -> None:
    """Add one trial's samples; `ValueError` without `KEYS`, `MeasurementError` on a full disk."""
    if missing := [key for key in KEYS if record.get(key) is None]:
        raise ValueError(f"samples without {', '.join(missing)}")
    line = json.dumps(_finite(record), separators=(",", ":"), allow_nan=False) + "\n"
    member = gzip.compress(line.encode(), compresslevel=6, mtime=0)
    with closing(AppendFile(path, complete_length=_members_length, note=_LOG.warning)) as file:
        file.append(member)


def read_samples(
    path: Path, *, note: Callable[[str], None] = _LOG.warning
) -> list[dict[str, object]]:
    """Samples of each trial; a last member that a crash cut short is ignored, and `note` called."""
    data = read_bytes(path)
    found = []
    end = 0
    for content, member_end in _members(data):
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: byte {end}: is not JSON") from error
        if not isinstance(record, dict) or any(key not in record for key in KEYS):
            raise DataError(f"{path}: byte {end}: lacks one of {', '.join(KEYS)}")
        found.append(record)
        end = member_end
    if end < len(data):
        if _is_damaged(data[end:]):
            raise DataError(f"{path}: byte {end}: is not gzip, or is damaged")
        note(f"{path}: the last trial's samples were cut short and are ignored")
    return found


def _members(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Content and end of each whole gzip member, up to the first that is not whole."""
    position = 0
    while position < len(data):
        inflate = zlib.decompressobj(_GZIP_WINDOW_BITS)
        parts = []
        while position < len(data) and not inflate.eof:
            # In pieces, because zlib copies whatever follows the member.
            piece = data[position : position + _PIECE_BYTES]
            try:
                parts.append(inflate.decompress(piece))
            except zlib.error:
                return
            position += len(piece) - len(inflate.unused_data)
        if not inflate.eof:
            return
        yield b"".join(parts), position


def _members_length(data: bytes) -> int:
    return max((end for _, end in _members(data)), default=0)


def _is_damaged(tail: bytes) -> bool:
    """Whether these bytes are wrong, rather than the beginning of a member."""
    try:
        zlib.decompressobj(_GZIP_WINDOW_BITS).decompress(tail)
    except zlib.error:
        return True
    return False


def _finite(value: object) -> object:
    match value:
        case float():
            return float(value) if math.isfinite(value) else repr(float(value))
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value


class StoredProfile(Struct, frozen=True, kw_only=True):
    """The operators of one step of one configuration on one device."""

    config_hash: str
    device: str
    """Its label."""
    covered_frac: Annotated[float, Meta(ge=0, le=1)]
    """Share of the profiled step's wall time that operators on the device account for; 1 where
    operators run on the host itself."""
    operators: tuple[Operators, ...]

    def scaled_to(self, step_s: float) -> tuple[Operators, ...]:
        """Lay the shares of time over a step measured without the profiler."""
        profiled_s = total(self.operators, "time_s")
        if profiled_s <= 0.0:
            return self.operators
        factor = step_s * self.covered_frac / profiled_s
        return tuple(replace(one, time_s=(one.time_s or 0.0) * factor) for one in self.operators)


class _File(Struct):
    version: Literal[1]
    profiles: list[StoredProfile]


def keep_logs(path: Path, *, keys: Mapping[str, object], logs: Mapping[str, str]) -> None:
    """Keep what LoadGen wrote about a trial in `run.loadgen/HASH-TRIAL-ATTEMPT` beside `run.csv`.

    `DataError` where it cannot be written.
    """
    trial = "-".join(str(keys[key]) for key in KEYS if key != "device")
    folder = path.with_name(f"{path.stem}.loadgen") / trial
    for name, text in logs.items():
        write_document(folder / name, text, with_folder=True)


def failures_path(path: Path) -> Path:
    """`run.failures.txt` beside `run.csv`."""
    return path.with_name(path.stem + ".failures.txt")


def profiles_path(path: Path) -> Path:
    """`run.operators.json` beside `run.csv`."""
    return path.with_name(path.stem + ".operators.json")


def write_profile(
    path: Path, *, config_hash: str, device: str, profile: Mapping[str, object]
) -> None:
    """Add or replace one configuration's profile beside the result file `path`."""
    known = read_profiles(path)
    whole = {"config_hash": config_hash, "device": device, **profile}
    known[config_hash, device] = msgspec.convert(whole, StoredProfile)
    text = msgspec.json.encode(_File(version=1, profiles=list(known.values())))
    write_document(profiles_path(path), msgspec.json.format(text, indent=1).decode() + "\n")


def read_profiles(path: Path) -> dict[tuple[str, str], StoredProfile]:
    """Profiles beside the result file, by (config_hash, device label); none when there is no file.

    `DataError` when the file is damaged.
    """
    sidecar = profiles_path(path)
    if not sidecar.exists():
        return {}
    try:
        found = msgspec.json.decode(sidecar.read_bytes(), type=_File).profiles
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{sidecar}: cannot be read ({error}); delete it or run again") from None
    return {(one.config_hash, one.device): one for one in found}
