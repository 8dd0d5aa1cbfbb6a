"""Rows of result files as dictionaries, however many there are.

Small files are read by the exact reader alone, which needs neither pandas nor numpy; large ones go
through the frame, which takes a tenth of the time. The rows are the same but for blank cells: those
of a large file are left out, which saves most of the memory.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.results.reader import read_rows
from bench.results.schema import Row, Value

if TYPE_CHECKING:
    import pandas as pd

LARGE_BYTES = 2 * 2**20
"""Some 3,000 rows: about as long to read as pandas is to import."""
_LOG = logging.getLogger(__name__)


def read_many(
    paths: Sequence[Path],
    *,
    columns: Sequence[str] | None = None,
    note: Callable[[str], None] = _LOG.warning,
) -> list[Row]:
    """All rows of several files; of large ones only `columns` and the required ones, if given."""
    if sum(_size_bytes(path) for path in paths) < LARGE_BYTES:
        return [row for path in paths for row in read_rows(path, note=note)]
    from bench.results.frame import read_frame

    return [
        row for path in paths for row in rows_of(read_frame([path], columns=columns, note=note))
    ]


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # whoever reads it will say what is wrong
        return 0


def rows_of(frame: "pd.DataFrame") -> list[Row]:
    """The rows of a frame as dictionaries of the cells that are not blank."""
    if not len(frame):
        return []
    filled = frame.dropna(axis="columns", how="all")
    names = [str(name) for name in filled]
    columns = [cells_of(filled[name]) for name in names]
    return [
        {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}
        for cells in zip(*columns, strict=True)
    ]


def cells_of(series: "pd.Series") -> list[Value]:
    """One column as plain values, None for a blank."""
    values = series.astype(object)
    found: list[Value] = values.where(series.notna(), None).tolist()
    return found
