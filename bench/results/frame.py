"""Reads large result files into a pandas frame, as strictly as `bench.results.reader`.

pandas is fast but forgiving, and does not know our kinds. So a file takes the fast path only while
nothing about it is unusual; at the first doubt the exact reader decides, and either refuses with
line and column or gives the same rows slowly. pandas is imported here only, because the write path
must stay light.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import BenchError
from bench.results.frame_columns import blank_series, read_columns, series_of
from bench.results.reader import check_header, parse_rows, read_bytes
from bench.results.schema import BY_NAME, NAMES, REQUIRED, Row

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)
_GUARDS = (b",'", b"\n'", b"\"'")


def read_frame(
    paths: Sequence[Path],
    *,
    columns: Sequence[str] | None = None,
    note: Callable[[str], None] = _LOG.warning,
) -> "pd.DataFrame":
    """All rows of several files, with every column of the schema in its order.

    Whole numbers are `Int64`, claims `boolean`, other figures `float64`, texts categories save
    `detail` and `started_utc`; blank is missing. With `columns` only these and the required ones
    are read, which takes a third of the time; cells of the others are not looked at. Of several
    files that differ in a text it is no category.
    """
    import pandas as pd

    wanted = [name for name in NAMES if columns is None or name in columns or name in REQUIRED]
    frames = [_read_one(path, wanted=wanted, note=note) for path in paths]
    if not frames:
        return _frame_of([], wanted=wanted)
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _read_one(path: Path, *, wanted: list[str], note: Callable[[str], None]) -> "pd.DataFrame":
    from bench.results.plain import is_plain

    data = read_bytes(path)
    if is_plain(data):
        # What pandas raises differs by kind of cell; the exact reader then names line and column.
        with suppress(BenchError, ValueError, TypeError, OverflowError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of mixed types in a column, which are refused
            return _fast(data, path=path, wanted=wanted)
    return _frame_of(parse_rows(data, path=path, note=note), wanted=wanted)


def _fast(data: bytes, *, path: Path, wanted: list[str]) -> "pd.DataFrame":
    """The frame, by pandas; raises when anything in the file gives reason for doubt."""
    header = data[: data.find(b"\n")].decode().split(",")
    known = [column for column in check_header(header, path=path) if column is not None]
    has_guards = b"'" in data and any(guard in data for guard in _GUARDS)
    columns = [column for column in known if column.name in wanted]
    present = read_columns(data, columns=columns, has_guards=has_guards, path=path)
    return _complete(present, length=len(present[REQUIRED[0]]), wanted=wanted)


def _complete(present: "dict[str, pd.Series]", *, length: int, wanted: list[str]) -> "pd.DataFrame":
    """A frame of the columns wanted, blank where a file has none of that name."""
    import pandas as pd

    columns = {
        name: present[name] if name in present else blank_series(length, column=BY_NAME[name])
        for name in wanted
    }
    return pd.DataFrame(columns, copy=False)


def _frame_of(rows: list[Row], *, wanted: list[str]) -> "pd.DataFrame":
    present = {
        name: series_of([row[name] for row in rows], column=BY_NAME[name]) for name in wanted
    }
    return _complete(present, length=len(rows), wanted=wanted)
