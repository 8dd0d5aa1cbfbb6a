"""Files of published ratios: throughput on one chip over another's, measured by one party.

The columns are fixed; a line that cannot be used is refused by its number, never passed over.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import BenchError, DataError
from bench.core.nouns import Chip
from bench.hardware.chips import chip

COLUMNS = (
    "chip_a",
    "chip_b",
    "phase",
    "net",
    "kind",
    "num_devices",
    "throughput_ratio_b_over_a",
    "note",
    "point_id",
)
_MAX_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class RatioPoint:
    """One published ratio."""

    chip_a: Chip
    chip_b: Chip
    phase: str
    net: str
    kind: str
    num_devices: int
    ratio: float
    """Throughput of b over that of a."""
    note: str
    point_id: str


def read_points(path: Path) -> list[RatioPoint]:
    """Read a file of published ratios; `DataError` names the line that cannot be used."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: larger than {_MAX_BYTES:,} bytes, which no such file is")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(f"{path}: cannot be read: {reason}") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    points = []
    try:
        header = next(reader, [])
        if tuple(cell.strip() for cell in header) != COLUMNS:
            raise DataError(f"{path}: the first line must be {','.join(COLUMNS)}")
        for cells in reader:
            if cells:
                points.append(_point(cells, where=f"{path}: line {reader.line_num}"))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not valid CSV: {error}") from None
    if not points:
        raise DataError(f"{path}: holds no ratio below its first line")
    return points


def _point(cells: Sequence[str], *, where: str) -> RatioPoint:
    if len(cells) != len(COLUMNS):
        raise DataError(f"{where} has {len(cells)} cells where the header has {len(COLUMNS)}")
    row = dict(zip(COLUMNS, (cell.strip() for cell in cells), strict=True))
    try:
        chip_a, chip_b = chip(row["chip_a"]), chip(row["chip_b"])
    except BenchError as error:
        raise DataError(f"{where}: {error}") from None
    ratio, devices = row["throughput_ratio_b_over_a"], row["num_devices"]
    try:
        value = float(ratio)
    except ValueError:
        value = math.nan
    if not 1e-6 < value < 1e6:
        raise DataError(f"{where}: throughput_ratio_b_over_a {ratio[:20]!r} is no ratio over 0")
    if not devices.isascii() or not devices.isdigit() or not 0 < int(devices[:9]) < 10**7:
        raise DataError(f"{where}: num_devices {devices[:20]!r} is not a whole number over 0")
    for name in ("phase", "net", "kind"):
        if not row[name]:
            raise DataError(f"{where}: {name} is blank")
    words = {name: row[name] for name in ("phase", "net", "kind", "note", "point_id")}
    return RatioPoint(chip_a=chip_a, chip_b=chip_b, num_devices=int(devices), ratio=value, **words)
