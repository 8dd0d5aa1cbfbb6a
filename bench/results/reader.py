"""A result file's text: one cell from value to text and back, records, and the file to typed rows.

RFC 4180 with a line feed, UTF-8, '.' as decimal sign. None is a blank cell, and so is an empty
text: a CSV does not know them apart. Text that a spreadsheet would run as a formula gets a leading
apostrophe, which is taken off again when read. NUL and lone surrogates have no place in a UTF-8
file and become U+FFFD: a failed trial's message must never cost its row. A wrong value in a cell is
our own mistake, hence `ValueError`; what is found in a user's file becomes a `DataError`.

Columns that a newer minor version added are ignored, those that an older one lacked are blank; a
higher major version is refused, because there a column means something else. Nothing is repaired or
skipped in silence: the only thing passed over is a last line that a crash cut short, and `note`
gets a line about it.
"""

import csv
import io
import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import get_args

from bench.core.errors import DataError, IncompatibleError
from bench.core.nouns import Status
from bench.results.schema import BY_NAME, NAMES, REQUIRED, SCHEMA_VERSION, Column, Row, Value

MAX_CELL_CHARACTERS = 32_767
"""Longest cell that Excel keeps: https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3"""
_INT64_MAX = 2**63 - 1

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_GUARDED = re.compile(r"'*[=+\-@\t\r\n]")
"""First characters that make a spreadsheet run a cell: https://owasp.org/www-community/attacks/CSV_Injection"""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NEEDS_QUOTES = re.compile(r'[",\r\n]|\A\s|\s\Z')
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
_INT = re.compile(r"[-+]?[0-9]{1,19}")
_FLOAT = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", re.ASCII)
_ROW_START = re.compile(rb"\n[0-9]+\.[0-9]+,")
_BOOLS = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


def format_cell(value: Value, column: Column) -> str:
    """Text of one value, before quoting; `ValueError` when it is not of the column's kind."""
    if value is None:
        return ""
    match column.kind:
        case "str" if isinstance(value, str):
            return _format_text(value)
        case "utc" if isinstance(value, str):
            return _checked_utc(value)
        case "json" if isinstance(value, str):
            if len(text := canonical_json(value)) > MAX_CELL_CHARACTERS:
                raise ValueError(
                    f"column {column.name}: JSON of {len(text)} characters is too long"
                )
            return text
        case "bool" if isinstance(value, bool):
            return "1" if value else "0"
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            if abs(value) > _INT64_MAX:
                raise ValueError(f"column {column.name}: {value} does not fit in 64 bits")
            return int.__repr__(value)
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
            if not math.isfinite(number):
                raise ValueError(f"column {column.name}: {number} is not a number; use None")
            return repr(number)
    raise ValueError(f"column {column.name} is {column.kind}, not {type(value).__name__}")


def parse_cell(text: str, column: Column) -> Value:
    """Value of one cell; `ValueError` says what was expected.

    More is read than is written, because spreadsheets save 5 as `5.0` and 1 as `TRUE`.
    """
    if text == "":
        return None
    match column.kind:
        case "str":
            return unguard(text)
        case "utc":
            return _checked_utc(text)
        case "json":
            return canonical_json(text)
        case "bool":
            if (claim := _BOOLS.get(text.strip().lower())) is None:
                raise ValueError("expected 1 or 0")
            return claim
        case "int":
            return _parse_int(text)
        case "float":
            if _FLOAT.fullmatch(text) is None or not math.isfinite(number := float(text)):
                raise ValueError("expected a finite number")
            return number


def unguard(text: str) -> str:
    """Take off the apostrophe that `format_cell` put before a formula character."""
    return text[1:] if text.startswith("'") and _GUARDED.match(text) else text


def canonical_json(text: str) -> str:
    """JSON with sorted keys and no spaces, so that equal parameters are equal text."""
    try:
        return _CANONICAL.encode(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError("expected JSON without NaN or infinity") from error


def format_record(cells: list[str]) -> bytes:
    """One line of the file, quoted where needed, line feed included."""
    quoted = (
        '"' + cell.replace('"', '""') + '"' if _NEEDS_QUOTES.search(cell) else cell
        for cell in cells
    )
    return (",".join(quoted) + "\n").encode()


def complete_length(data: bytes) -> int:
    """Bytes up to the end of the last whole record: a line feed outside quotes.

    Quotes come in pairs, so what lies outside them is every other piece between quotes. A write
    cut inside a quoted cell is thereby found even where it was cut just after a line feed.
    `ValueError` where a stray quote would make whole rows look like the inside of a cell.
    """
    end = len(data)
    pieces = data.split(b'"')
    for index in range(len(pieces) - 1, -1, -1):
        start = end - len(pieces[index])
        if index % 2 == 0 and (found := pieces[index].rfind(b"\n")) >= 0:
            end = start + found + 1
            break
        end = start - 1
    whole = max(end, 0)
    if _ROW_START.search(data, whole):
        line = data.count(b"\n", 0, whole) + 1
        raise ValueError(f"line {line}: a quote opens here and is never closed")
    return whole


def _format_text(text: str) -> str:
    clean = _UNSTORABLE.sub("\ufffd", text)
    guarded = "'" + clean if _GUARDED.match(clean) else clean
    if len(guarded) > MAX_CELL_CHARACTERS:
        return guarded[: MAX_CELL_CHARACTERS - 3] + "..."
    return guarded


def _checked_utc(text: str) -> str:
    if _UTC.fullmatch(text) is None:
        raise ValueError(f"expected a time such as 2030-01-31T12:00:00Z, not {text[:40]!r}")
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time: {error}") from error
    return text


def _parse_int(text: str) -> int:
    if _INT.fullmatch(text) is not None:
        number = int(text)
    elif _FLOAT.fullmatch(text) is not None and float(text).is_integer():
        number = int(float(text))
    else:
        raise ValueError("expected a whole number")
    if abs(number) > _INT64_MAX:
        raise ValueError("expected a whole number of at most 64 bits")
    return number


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
