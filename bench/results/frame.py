"""Rows of result files as a pandas frame.

The cells are those of `bench.results.reader`, which alone parses and refuses: pandas would pad
short rows and take 'nan' for a number. pandas is imported here only, because the write path must
stay light.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.results.reader import parse_columns, read_bytes
from bench.results.schema import COLUMNS

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


def read_frame(
    paths: Sequence[Path], *, note: Callable[[str], None] = _LOG.warning
) -> "pd.DataFrame":
    """All rows of several files, with every column of the schema in its order; blank is missing."""
    import pandas as pd

    files = [parse_columns(read_bytes(path), path=path, note=note) for path in paths]
    return pd.DataFrame(
        {
            column.name: pd.Series(
                [value for values in files for value in values[column.name]],
                dtype=_DTYPES[column.kind],
            )
            for column in COLUMNS
        }
    )
