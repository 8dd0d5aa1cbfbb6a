"""Reads large result files into a pandas frame, as strictly as `bench.results.reader`.

pandas is fast but forgiving: it pads short rows, takes 'nan' for a number, and does not know our
kinds. So a file takes the fast path only while nothing about it is unusual; at the first doubt
`read_rows` decides, and either refuses with line and column or gives the same rows slowly. pandas
is imported here only, because the write path must stay light.
"""

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.core.errors import BenchError
from bench.results.csvio import parse_cell, unguard
from bench.results.reader import (
    check_header,
    check_value,
    check_version,
    parse_rows,
    read_bytes,
)
from bench.results.schema import COLUMNS, NAMES, REQUIRED, Column, Row

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)
_DTYPES = {
    "str": "str",
    "utc": "str",
    "json": "str",
    "bool": "boolean",
    "int": "Int64",
    "float": "float64",
}
# Booleans are read as text: pandas accepts more spellings of them than we write.
_READ_DTYPES = {**_DTYPES, "bool": "str"}
_NAN_CELL = re.compile(rb"[,\n\"]\s*[-+]?nan\s*[,\r\n\"]", re.IGNORECASE)
_PIECE_BYTES = 1 << 18  # what a processor keeps near
_GUARDS = (b",'", b"\n'", b"\"'")


def read_frame(
    paths: Sequence[Path],
    *,
    columns: Sequence[str] | None = None,
    note: Callable[[str], None] = _LOG.warning,
) -> "pd.DataFrame":
    """All rows of several files, with every column of the schema in its order.

    Whole numbers are `Int64`, claims `boolean`, the rest `float64` or text; blank is missing. With
    `columns` only these and the required ones are read, which takes a third of the time; cells of
    the others are not looked at.
    """
    import pandas as pd

    wanted = [name for name in NAMES if columns is None or name in columns or name in REQUIRED]
    frames = [_read_one(path, wanted=wanted, note=note) for path in paths]
    if not frames:
        return _frame_of([])[wanted]
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _read_one(path: Path, *, wanted: list[str], note: Callable[[str], None]) -> "pd.DataFrame":
    data = read_bytes(path)
    if _is_plain(data):
        # What pandas raises differs by kind of cell; the exact reader then names line and column.
        with suppress(BenchError, ValueError, TypeError, OverflowError):
            return _fast(data, path=path, wanted=wanted)
    return _frame_of(parse_rows(data, path=path, note=note))[wanted]


def _is_plain(data: bytes) -> bool:
    """Whether pandas and the csv module surely see the same cells in these bytes."""
    # A cell 'nan' is blank to pandas; the plain search goes first, because the pattern is slow.
    has_nan = b"nan" in data.lower() and _NAN_CELL.search(data) is not None
    if has_nan or b"\0" in data or b"\r" in data or not data.endswith(b"\n"):
        return False
    width = data.count(b",", 0, data.find(b"\n"))
    counts = _count_unquoted(data)
    # pandas pads short rows and refuses long ones, so equal totals mean that no row is short.
    return counts is not None and counts[0] == counts[1] * width


def _count_unquoted(data: bytes) -> tuple[int, int] | None:
    """Commas and line ends outside quotes; None where a quote stands in the midst of a cell."""
    if b'"' not in data:
        return data.count(b","), data.count(b"\n")
    import numpy as np

    cells = np.frombuffer(data, dtype=np.uint8)
    is_edge = np.zeros(256, dtype=bool)  # what may stand beside a quote, from the outside
    is_edge[[ord(","), ord("\n"), ord('"')]] = True
    num_commas = num_lines = 0
    is_open = False
    for start in range(0, len(cells), _PIECE_BYTES):
        piece = cells[start : start + _PIECE_BYTES]
        is_quote = piece == ord('"')
        inside = np.bitwise_xor.accumulate(is_quote.view(np.uint8)).view(bool) ^ is_open
        places = np.flatnonzero(is_quote)
        opens, closes = places[inside[places]] + start, places[~inside[places]] + start
        before, after = cells[opens[opens > 0] - 1], cells[np.minimum(closes + 1, len(cells) - 1)]
        if not (is_edge[before].all() and is_edge[after].all()):
            return None
        num_commas += int(np.count_nonzero((piece == ord(",")) & ~inside))
        num_lines += int(np.count_nonzero((piece == ord("\n")) & ~inside))
        is_open = bool(inside[-1])
    return None if is_open else (num_commas, num_lines)


def _fast(data: bytes, *, path: Path, wanted: list[str]) -> "pd.DataFrame":
    import numpy as np
    import pandas as pd

    header = data[: data.find(b"\n")].decode().split(",")
    known = [column for column in check_header(header, path=path) if column is not None]
    columns = [column for column in known if column.name in wanted]
    with np.errstate(invalid="ignore"):  # casting a cell such as inf to a whole number
        read = pd.read_csv(
            BytesIO(data),
            usecols=[column.name for column in columns],
            dtype={column.name: _READ_DTYPES[column.kind] for column in columns},
            keep_default_na=False,
            na_values=[""],
            float_precision=_precision(pd.__version__),
            encoding="utf-8",
        )
    has_guards = b"'" in data and any(guard in data for guard in _GUARDS)
    present = {
        column.name: _checked(read[column.name], column=column, has_guards=has_guards, path=path)
        for column in columns
    }
    return _complete(present, length=len(read))[wanted]


def _precision(pandas_version: str) -> Literal["round_trip"] | None:
    """None from pandas 3.1 on, whose default is exact and which warns when it is told so."""
    major, minor = (int(part) for part in pandas_version.split(".")[:2])
    return None if (major, minor) >= (3, 1) else "round_trip"


def _checked(series: "pd.Series", *, column: Column, has_guards: bool, path: Path) -> "pd.Series":
    """Apply what `parse_cell` asks beyond the dtype; `ValueError` or `DataError` for a doubt."""
    import numpy as np

    if column.name in REQUIRED and series.isna().any():
        raise ValueError(f"blank {column.name}")
    if column.kind == "float" and np.isinf(series.to_numpy()).any():
        raise ValueError(f"infinite {column.name}")
    if column.kind in ("bool", "json", "utc") or column.name in ("status", "schema_version"):
        values = {text: parse_cell(text, column) for text in series.dropna().unique()}
        for value in values.values():
            check_value(value, column=column)
            if column.name == "schema_version":
                check_version(value, path=path, line=0)
        if any(text != value for text, value in values.items()):
            series = series.map(values)
    elif column.kind == "str" and has_guards:
        series = series.map(unguard, na_action="ignore")
    return series.astype("boolean") if column.kind == "bool" else series


def _complete(present: "dict[str, pd.Series]", *, length: int) -> "pd.DataFrame":
    import pandas as pd

    blank = {
        kind: pd.Series([None] * length, dtype=None if dtype == "str" else dtype)
        for kind, dtype in _DTYPES.items()
    }
    return pd.DataFrame(
        {column.name: present.get(column.name, blank[column.kind]) for column in COLUMNS}
    )


def _frame_of(rows: list[Row]) -> "pd.DataFrame":
    import pandas as pd

    present = {
        column.name: pd.Series([row[column.name] for row in rows], dtype=_DTYPES[column.kind])
        for column in COLUMNS
    }
    return _complete(present, length=len(rows))
