"""Measured collectives of one link: latency by operation, group size and message size.

Between two measured sizes latency follows the alpha-beta line through both: leaving one size out at
a time, that misses by 4.2 % on the shipped NVLink tables, a straight line in log size and log
latency by 4.8 %; the choice was made on those tables. On the PCI Express table it misses by 7.2 %:
with eight GPUs single sizes take half of what both neighbours suggest, or twice as long, and of a
dozen interpolants none missed by less than 6.9 %. A smaller message never needs longer than a
larger one, so slow outliers are cut down to the next larger size. Files are CSV:
`op,num_gpus,message_bytes,latency_us`.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Annotated

from msgspec import Meta

from bench.core.errors import DataError
from bench.core.separated import SHORTENED, decimal_mark, decoded, plain_number, separated, unmarked
from bench.hardware.costs.collectives import OPS, Op
from bench.hardware.loader import AboveZero, Declared, decode

FOLDER = Path(__file__).with_name("tables")
COLUMNS = ("op", "num_gpus", "message_bytes", "latency_us")
_MAX_RANKS, _MAX_BYTES = 10**7, 2**50
"""More is a damaged cell: no job has as many devices, nor a message of a pebibyte."""
_COMMENT = re.compile(r'^[ \t]*"?#.*$', re.MULTILINE)
_NAMES: dict[str, Op] = {op.replace("_", ""): op for op in OPS}


class Point(Declared, frozen=True, kw_only=True):
    """One measurement."""

    op: Op
    num_ranks: Annotated[int, Meta(ge=2, le=_MAX_RANKS)]
    message_bytes: Annotated[int, Meta(gt=0, le=_MAX_BYTES)]
    latency_s: AboveZero


@dataclass(frozen=True, slots=True)
class Series:
    """One operation at one group size; latency never falls with size."""

    message_bytes: tuple[int, ...]
    latency_s: tuple[float, ...]

    @property
    def floor_s(self) -> float:
        """What the smallest message took."""
        return self.latency_s[0]

    def seconds(self, num_bytes: float) -> float:
        """Latency of a message: interpolated, the smallest below, the last slope above."""
        sizes, times = self.message_bytes, self.latency_s
        right = bisect_left(sizes, num_bytes)
        if right == 0:
            return times[0]
        if right == len(sizes):
            return times[-1] + self._last_slope() * (num_bytes - sizes[-1])
        left = right - 1
        share = (num_bytes - sizes[left]) / (sizes[right] - sizes[left])
        return times[left] + share * (times[right] - times[left])

    def _last_slope(self) -> float:
        """Seconds per byte: the median of the last three steps, since one may be an outlier."""
        points = list(zip(self.message_bytes, self.latency_s, strict=True))[-4:]
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)]
        if not slopes:  # one size only: as if it were all bandwidth
            return self.latency_s[0] / self.message_bytes[0]
        return median(slopes)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """All measurements of one link."""

    points: tuple[Point, ...]

    @cached_property
    def _series(self) -> dict[tuple[Op, int], Series]:
        by_series: dict[tuple[Op, int], dict[int, list[float]]] = {}
        for point in self.points:
            sizes = by_series.setdefault((point.op, point.num_ranks), {})
            sizes.setdefault(point.message_bytes, []).append(point.latency_s)
        built = {}
        for key, sizes in by_series.items():
            descending = sorted(sizes, reverse=True)
            times = list(accumulate((median(sizes[size]) for size in descending), min))
            built[key] = Series(tuple(reversed(descending)), tuple(reversed(times)))
        return built

    def groups(self, op: Op) -> list[int]:
        """Group sizes at which `op` was measured, ascending."""
        return sorted(ranks for name, ranks in self._series if name == op)

    def series(self, op: Op, *, num_ranks: int) -> Series:
        """Return one measured series; KeyError where there is none."""
        return self._series[op, num_ranks]

    def without_size(self, message_bytes: int) -> "Curve":
        """Return the curve as if this size had never been measured."""
        return Curve(points=tuple(x for x in self.points if x.message_bytes != message_bytes))


class _TableRow(Declared, frozen=True, kw_only=True):
    op: Op
    num_gpus: Annotated[float, Meta(ge=2, le=_MAX_RANKS, multiple_of=1)]
    message_bytes: Annotated[float, Meta(gt=0, le=_MAX_BYTES, multiple_of=1)]
    latency_us: Annotated[float, Meta(gt=0, lt=1e12)]


def read_points(text: str, *, what: str) -> tuple[Point, ...]:
    """Read a table of measured collectives; `DataError` names `what`, line and column.

    Several rows of one size are measurements repeated; their order is of no account.
    """
    table = separated(_COMMENT.sub("", text), what=what)
    names = [name.lower() for name in table.header]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        found = f"; found: {' '.join(', '.join(table.header).split())[:80]}" if names else ""
        raise DataError(f"{what}: no column {missing[0]!r}; needed: {', '.join(COLUMNS)}{found}")
    rows = [
        (line, dict(zip(names, map(str.strip, cells), strict=True)))
        for line, cells in table.records
    ]
    if not rows:
        raise DataError(f"{what}: no rows below the header")
    mark = decimal_mark(table, numbers=(row[name] for _, row in rows for name in COLUMNS[1:]))
    return tuple(_point(row, where=f"{what}: line {line}", mark=mark) for line, row in rows)


def _point(row: Mapping[str, str], *, where: str, mark: str) -> Point:
    if SHORTENED.fullmatch(row["message_bytes"]):
        raise DataError(
            f"{where}: message_bytes: {row['message_bytes']} is a whole number that a spreadsheet "
            "cut down; give all its digits"
        )
    cells = {name: plain_number(row[name], mark=mark) for name in COLUMNS}
    # `all_to_all`, `alltoall` and `AllToAll` are one operation.
    cells["op"] = _NAMES.get(re.sub("[-_]", "", row["op"].lower()), row["op"][:40])
    one = decode(cells, into=_TableRow, what=where, is_text=True)
    return Point(
        op=one.op,
        num_ranks=int(one.num_gpus),
        message_bytes=int(one.message_bytes),
        latency_s=one.latency_us * 1e-6,
    )


def read_table(path: Path) -> tuple[Point, ...]:
    """Read a CSV that a user named."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    return read_points(decoded(unmarked(data, what=path.name), what=path.name), what=path.name)


@cache
def load_curve(name: str) -> Curve:
    """Return a shipped curve by the name of its file."""
    return Curve(points=read_table(FOLDER / f"{name}.csv"))
