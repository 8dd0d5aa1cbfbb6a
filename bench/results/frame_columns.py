"""Columns of a result file as pandas reads them, each checked by what its kind allows.

Texts are read as plain objects, which pandas shares between equal cells, and each distinct text is
parsed once, as the exact reader would parse every cell. Anything that gives reason for doubt
raises; the exact reader then decides.
"""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.results.csvio import INT64_MAX, are_canonical, parse_cell
from bench.results.reader import check_value, check_version
from bench.results.schema import COLUMNS, REQUIRED, Column, Value

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Objects = NDArray[np.object_]
    Index = NDArray[np.intp]

_DTYPES = {
    "str": "str",
    "utc": "str",
    "json": "str",
    "bool": "boolean",
    "int": "Int64",
    "float": "float64",
}
_MANY = ("detail", "started_utc")
_FEW = frozenset(
    column.name for column in COLUMNS if column.kind in ("str", "json") and column.name not in _MANY
)
"""Texts of which a file has few different ones: kept as categories, in the order of the alphabet,
so that grouping need not tell 100,000 cells apart again."""
_EXACT_WHOLE = 2.0**53
"""Whole numbers from here on may not be what the file said, once they were floats."""


def read_columns(
    data: bytes, *, columns: list[Column], has_guards: bool, path: Path
) -> "dict[str, pd.Series]":
    """Columns by name; `ValueError`, `TypeError`, `OverflowError` or `DataError` for a doubt.

    `has_guards` says whether any cell may begin with an apostrophe; `path` is for messages.
    """
    read = _read_csv(data, columns=columns)
    inexact = [
        column for column in columns if column.kind == "int" and _is_inexact(read[column.name])
    ]
    if inexact:
        again = _read_csv(data, columns=inexact, is_text=True)
        read = read.assign(**{column.name: again[column.name] for column in inexact})
    return {
        column.name: _checked(read[column.name], column=column, has_guards=has_guards, path=path)
        for column in columns
    }


def _read_csv(data: bytes, *, columns: list[Column], is_text: bool = False) -> "pd.DataFrame":
    """Floats as such, whole numbers as pandas finds them, all else (or all) as the text it is."""
    import numpy as np
    import pandas as pd

    dtypes = {
        column.name: "object" if is_text or column.kind != "float" else "float64"
        for column in columns
        if is_text or column.kind != "int"
    }
    with np.errstate(invalid="ignore"):  # casting a cell such as inf to a whole number
        return pd.read_csv(
            BytesIO(data),
            usecols=[column.name for column in columns],
            dtype=dtypes,
            keep_default_na=False,
            na_values=[""],
            float_precision=_precision(pd.__version__),
            encoding="utf-8",
        )


def _precision(pandas_version: str) -> Literal["round_trip"] | None:
    """None from pandas 3.1 on, whose default is exact and which warns when it is told so."""
    major, minor = (int(part) for part in pandas_version.split(".")[:2])
    return None if (major, minor) >= (3, 1) else "round_trip"


def _is_inexact(series: "pd.Series") -> bool:
    """Whether whole numbers were read as floats too large to hold each of them."""
    return bool(series.dtype == "float64" and (series.abs() >= _EXACT_WHOLE).any())


def _checked(series: "pd.Series", *, column: Column, has_guards: bool, path: Path) -> "pd.Series":
    """Apply what `parse_cell` asks beyond the dtype; `ValueError` or `DataError` for a doubt."""
    import numpy as np
    import pandas as pd

    if column.name in REQUIRED and series.isna().any():
        raise ValueError(f"blank {column.name}")
    if column.kind == "float":
        if np.isinf(series.to_numpy()).any():
            raise ValueError(f"infinite {column.name}")
        return series
    if column.kind == "int" and series.dtype != "object":
        return _whole(series, name=column.name)
    codes, found = pd.factorize(series.to_numpy(), sort=column.name in _FEW)
    texts = found.tolist()
    is_free = column.kind == "str" and column.name not in ("status", "schema_version")
    values = texts if is_free and not has_guards else _parsed(texts, column=column, path=path)
    if column.name in _FEW and values == texts:
        return _categories(codes, texts=found)
    known = np.empty(len(values) + 1, dtype=object)  # the last one is that of code -1, a blank
    known[:-1] = values
    known[-1] = None
    return series_of(known[codes], column=column)


def _whole(series: "pd.Series", *, name: str) -> "pd.Series":
    """Whole numbers as pandas found them, without a doubt about any."""
    import numpy as np
    import pandas as pd

    values = series.to_numpy()
    missing = np.isnan(values) if values.dtype == np.float64 else np.zeros(len(values), dtype=bool)
    if values.dtype == np.float64:
        values = np.where(missing, 0.0, values)
        if (values != np.floor(values)).any():
            raise ValueError(f"a part of a whole in {name}")
        values = values.astype(np.int64)
    if values.dtype != np.int64 or (values < -INT64_MAX).any():
        raise ValueError(f"text or too many digits in {name}")
    return pd.Series(pd.arrays.IntegerArray(values, missing))


def _parsed(texts: list[str], *, column: Column, path: Path) -> list[Value]:
    """Each distinct text, parsed as the exact reader parses every cell."""
    if column.kind == "json" and are_canonical(texts):
        return list(texts)
    values = []
    for text in texts:
        value = parse_cell(text, column)
        check_value(value, column=column)
        if column.name == "schema_version":
            check_version(value, path=path, line=0)
        values.append(value)
    return values


def series_of(values: "list[Value] | Objects", *, column: Column) -> "pd.Series":
    """Values of one column as the dtype that stands for its kind; None is missing."""
    import numpy as np
    import pandas as pd

    if column.name not in _FEW:
        return pd.Series(values, dtype=_DTYPES[column.kind])
    codes, texts = pd.factorize(np.array(values, dtype=object), sort=True)
    return _categories(codes, texts=texts)


def blank_series(length: int, *, column: Column) -> "pd.Series":
    """A column in which nothing was measured."""
    import numpy as np
    import pandas as pd

    if column.name in _FEW:
        codes = np.full(length, -1, dtype=np.intp)
        return _categories(codes, texts=np.empty(0, dtype=object))
    dtype = _DTYPES[column.kind]
    missing = np.nan if dtype in ("str", "float64") else pd.NA
    return pd.Series(missing, index=range(length), dtype=dtype)


def _categories(codes: "Index", *, texts: "Objects") -> "pd.Series":
    import pandas as pd

    return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(texts, dtype="object")))
