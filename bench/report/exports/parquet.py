"""Parquet: the wide table of the result files, every row of it, with its types.

The same columns as the CSV, whatever their status says: this is another container, not another
selection. Whole numbers, claims and times keep their kind, blanks are null, and every column
carries its meaning as metadata. pyarrow is an optional extra because it weighs 170 MB.
"""

from __future__ import annotations

from datetime import datetime
from io import BytesIO
from typing import Any

from bench import __version__
from bench.core.errors import UsageError
from bench.report.exports.selection import Selection
from bench.results.schema import COLUMNS, SCHEMA_VERSION, Column, Row


def document(selection: Selection) -> bytes:
    """Return the file's bytes; `UsageError` where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "--to parquet needs pyarrow, which is not installed; "
            "pip install 'gapbench[parquet]', or use --to long-csv"
        ) from error
    types = {
        "str": pyarrow.string(),
        "json": pyarrow.string(),
        "utc": pyarrow.timestamp("us", tz="UTC"),
        "bool": pyarrow.bool_(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
    }
    fields = [
        pyarrow.field(column.name, types[column.kind], metadata={"meaning": column.meaning})
        for column in COLUMNS
    ]
    schema = pyarrow.schema(
        fields,
        metadata={"made_by": f"gapbench {__version__}", "schema_version": SCHEMA_VERSION},
    )
    cells = {column.name: [_cell(row, column) for row in selection.rows] for column in COLUMNS}
    buffer = BytesIO()
    parquet.write_table(pyarrow.table(cells, schema=schema), buffer)
    return buffer.getvalue()


def _cell(row: Row, column: Column) -> Any:
    value = row.get(column.name)
    if column.kind == "utc" and value is not None:
        return datetime.fromisoformat(str(value))
    return value
