"""Reads a result file into typed rows, or says in one line why it cannot be trusted.

Columns that a newer minor version added are ignored, those that an older one lacked are blank; a
higher major version is refused, because there a column means something else. Nothing is repaired or
skipped in silence: the only thing passed over is a last line that a crash cut short, and `note`
gets a line about it.
"""

import csv
import io
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from bench.core.errors import DataError, IncompatibleError
from bench.core.nouns import Status
from bench.results.csvio import complete_length, parse_cell
from bench.results.schema import BY_NAME, NAMES, REQUIRED, SCHEMA_VERSION, Column, Row, Value

_LOG = logging.getLogger(__name__)
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")
_MAJOR = int(SCHEMA_VERSION.partition(".")[0])
_STATUSES = get_args(Status)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_rows(path: Path, *, note: Callable[[str], None] = _LOG.warning) -> list[Row]:
    """Every row of a result file, with every column of the schema; blank cells are None."""
    return parse_rows(read_bytes(path), path=path, note=note)


def read_bytes(path: Path) -> bytes:
    """Content of a file that must be an ordinary one."""
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; give the CSV file of one run")
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is not an ordinary file")
        return path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}") from error


def parse_rows(data: bytes, *, path: Path, note: Callable[[str], None]) -> list[Row]:
    """Rows in the bytes of a result file; `path` is for messages."""
    records = _records(_text(data, path=path, note=note), path=path)
    _, header = next(records, (1, []))
    columns = _columns_of(header, path=path)
    blank: Row = dict.fromkeys(NAMES)
    # A text that comes again in a column is not parsed again; figures hardly ever do.
    known: list[dict[str, Value]] = [
        {} if column is None or column.name in REQUIRED else {"": None} for column in columns
    ]
    rows = []
    for line, cells in records:
        if len(cells) != len(header):
            raise DataError(
                f"{path}: line {line} has {len(cells)} cells where the header has {len(header)}"
            )
        row = blank.copy()
        for column, values, cell in zip(columns, known, cells, strict=True):
            if column is None:
                continue
            if cell in values:
                row[column.name] = values[cell]
                continue
            value = row[column.name] = _value(cell, column=column, line=line, path=path)
            if column.kind not in ("float", "utc"):
                values[cell] = value
        rows.append(row)
    return rows


def _columns_of(header: list[str], *, path: Path) -> list[Column | None]:
    """Column of the schema for each cell of the header; None for one to ignore."""
    if missing := [name for name in REQUIRED if name not in header]:
        raise DataError(
            f"{path}: is no result file of bench: its first line has no column {', '.join(missing)}"
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path}: line 1 has column {twice[0][:40]!r} more than once")
    return [BY_NAME.get(name) for name in header]


def _check_version(version: object, *, path: Path, line: int) -> None:
    """Refuse rows whose columns mean something else."""
    match = _VERSION.fullmatch(str(version))
    if match is None:
        raise DataError(
            f"{path}: line {line}: schema_version {str(version)[:40]!r} is not like "
            f"{SCHEMA_VERSION}"
        )
    if int(match[1]) != _MAJOR:
        raise IncompatibleError(
            f"{path}: line {line}: schema {version} cannot be read here, only {_MAJOR}.x; "
            "use the version of bench that wrote it, or a newer one"
        )


def _text(data: bytes, *, path: Path, note: Callable[[str], None]) -> str:
    if not data:
        raise DataError(f"{path}: is empty")
    try:
        whole = complete_length(data)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if b"\0" in data[: whole or len(data)]:
        raise DataError(f"{path}: is not a CSV in UTF-8: it has NUL bytes")
    if whole == 0:
        raise DataError(f"{path}: is no result file of bench: it has no complete header line")
    if whole < len(data):
        line = data.count(b"\n", 0, whole) + 1
        note(f"{path}: line {line} was cut short and is ignored")
    try:
        return data[:whole].decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line} is not UTF-8 text") from error


def _records(text: str, *, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each record that is not an empty line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}: line {line} is not valid CSV: {error}") from error
        if cells:
            yield line, cells


def _value(cell: str, *, column: Column, line: int, path: Path) -> Value:
    try:
        value = parse_cell(cell, column)
        if value is None and column.name in REQUIRED:
            raise ValueError("must not be blank")
        if column.name == "status" and value not in _STATUSES:
            raise ValueError(f"expected one of {', '.join(_STATUSES)}")
    except ValueError as error:
        raise DataError(
            f"{path}: line {line}, column {column.name}: {cell[:40]!r}: {error}"
        ) from error
    if column.name == "schema_version":
        _check_version(value, path=path, line=line)
    return value
