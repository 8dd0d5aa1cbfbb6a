"""A result file's text: one cell from value to text and back, records, and the file to typed rows.

RFC 4180 with a line feed, UTF-8, '.' as decimal sign. None is a blank cell, and so is an empty
text: a CSV does not know them apart. Text that a spreadsheet would run as a formula gets a leading
apostrophe, which is taken off again when read. NUL and lone surrogates have no place in a UTF-8
file and become U+FFFD: a failed trial's message must never cost its row. A wrong value in a cell is
our own mistake, hence `ValueError`; what is found in a user's file becomes a `DataError`.

Columns that a newer minor version added are ignored, those that an older one lacked are blank; a
higher major version is refused, because there a column means something else. Nothing is repaired or
skipped in silence: the only thing passed over is a last line that a crash cut short, and `note`
gets a line about it. What a spreadsheet saves is read where it leaves one reading
(`bench.core.separated`); a hash or a time that it rewrote is refused.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import get_args

from bench.core.errors import DataError, IncompatibleError
from bench.core.nouns import Status
from bench.core.separated import (
    HOW_TO_SAVE,
    NUMBER,
    SEPARATORS,
    Separated,
    decimal_mark,
    decoded,
    plain_number,
    separated,
    unmarked,
)
from bench.results.schema import (
    BY_NAME,
    COLUMNS,
    NAMES,
    REQUIRED,
    SCHEMA_VERSION,
    SIGNED,
    USABLE,
    Column,
    Row,
    Value,
)

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
_ROW_START = re.compile(rb"\n[0-9]+[.,][0-9]+[,;\t]")
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
            # A spreadsheet saves a time that it knows with a space, and without the Z.
            return _checked_utc(text.strip().replace(" ", "T").removesuffix("Z") + "Z")
        case "json":
            return canonical_json(text)
        case "bool":
            if (claim := _BOOLS.get(text.strip().lower())) is None:
                raise ValueError("expected 1 or 0")
            return claim
        case "int":
            return _parse_int(text)
        case "float":
            if NUMBER.fullmatch(text.strip()) is None or not math.isfinite(number := float(text)):
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
    elif NUMBER.fullmatch(text.strip()) is not None and float(text).is_integer():
        number = int(float(text))
    else:
        raise ValueError("expected a whole number")
    if abs(number) > _INT64_MAX:
        raise ValueError("expected a whole number of at most 64 bits")
    return number


_LOG = logging.getLogger(__name__)
_VERSION = re.compile(r"([0-9]{1,6})(\.[0-9]{1,6})?")
"""A spreadsheet saves 1.0 as 1."""
_MAJOR = int(SCHEMA_VERSION.partition(".")[0])
_STATUSES = get_args(Status)
_HASHES = ("run_id", "config_hash", "env_id", "device_uuid_hash", "git_commit", "host_hash")
_NUMBER_OF_HASH = re.compile(r"[0-9]([.,][0-9]+)?[eE][+-][0-9]+|-?inf")
_REWRITTEN = re.compile(
    r"[0-9][./-][0-9]+[./-][0-9]|[0-9]\.? ?[A-Z][a-z]{2}|[A-Z][a-z]{2}[- ][0-9]|###"
)
"""A date of some country, or a cell too narrow for what it holds."""
_UNSIGNED = {
    column.name: column
    for column in COLUMNS
    if column.kind in ("int", "float") and column.name not in SIGNED
}
Place = tuple[Separated, int]
"""A file, and a line in it."""


def read_rows(path: Path, *, note: Callable[[str], None] = _LOG.warning) -> list[Row]:
    """Every row of a result file, with every column of the schema; blank cells are None."""
    return parse_rows(read_bytes(path), path=path, note=note)


def read_together(paths: Iterable[Path], *, note: Callable[[str], None]) -> list[list[Row]]:
    """Rows of each file, to be looked at together: beside measured ones smoke rows are INVALID.

    They show that something runs, and no statistic may take them for measurements. Where there is
    nothing else they stay, with a note.
    """
    files = [read_rows(path, note=note) for path in paths]
    usable = [row for rows in files for row in rows if row["status"] in USABLE]
    smoke = [row for row in usable if "smoke" in str(row["reasons"]).split(";")]
    if smoke and len(smoke) == len(usable):
        note("only smoke rows: they show that it runs, and measure nothing")
    elif smoke:
        names = ", ".join(dict.fromkeys(str(row["workload"]) for row in smoke))
        note(
            f"left out: {len(smoke)} smoke {'row' if len(smoke) == 1 else 'rows'} ({names}), too "
            "short to stand beside measured ones"
        )
        for row in smoke:
            row.update(status="INVALID", reasons="smoke")
    return files


def read_all(paths: Iterable[Path], *, note: Callable[[str], None]) -> list[Row]:
    """Rows of all files in one list, as `read_together` gives them."""
    return [row for rows in read_together(paths, note=note) for row in rows]


def read_bytes(path: Path) -> bytes:
    """Content of a file that must be an ordinary one."""
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; give the CSV file of one run")
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is not an ordinary file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {reason}") from error


def parse_rows(data: bytes, *, path: Path, note: Callable[[str], None]) -> list[Row]:
    """Rows in the bytes of a result file; `path` is for messages."""
    table = separated(_text(data, path=path, note=note), what=str(path))
    columns = _columns_of(table.header, path=path)
    try:
        return list(_rows(table, columns=columns, mark=None))
    except DataError:
        # Numbers as a spreadsheet spells them; where there are none the same is found wrong again.
        numbers = (
            cell
            for _, cells in table.records
            for column, cell in zip(columns, cells, strict=True)
            if cell and column is not None and _is_number(column)
        )
        mark = decimal_mark(table, numbers=numbers)
        return list(_rows(table, columns=columns, mark=mark))


def _rows(table: Separated, *, columns: list[Column | None], mark: str | None) -> Iterator[Row]:
    """Each record as a row; `mark` is the decimal sign where numbers are not as written here."""
    blank: Row = dict.fromkeys(NAMES)
    # A text that comes again in a column is not parsed again; figures hardly ever do.
    known: list[dict[str, Value]] = [
        {} if column is None or column.name in REQUIRED else {"": None} for column in columns
    ]
    for line, cells in table.records:
        row, where, may_be_negative = blank.copy(), (table, line), False
        for column, values, cell in zip(columns, known, cells, strict=True):
            if column is None:
                continue
            if cell in values:
                row[column.name] = values[cell]
                continue
            value = row[column.name] = _value(cell, column, where, mark)
            if "-" in cell and column.name in _UNSIGNED:
                may_be_negative = True
            elif column.kind not in ("float", "utc"):
                values[cell] = value
        if may_be_negative and (column := negative_column(row)):
            raise _damaged(str(row[column.name]), column, where, "expected 0 or more")
        yield row


def negative_column(row: Row) -> Column | None:
    """Column of a usable row that is below zero where nothing can be.

    A clock that went backwards makes a row INVALID, and its figures stay in it.
    """
    if row["status"] not in USABLE:
        return None
    for name, column in _UNSIGNED.items():
        value = row.get(name)
        if isinstance(value, int | float) and value < 0:
            return column
    return None


def _is_number(column: Column) -> bool:
    return column.kind in ("int", "float") or column.name == "schema_version"


def _columns_of(header: Sequence[str], *, path: Path) -> list[Column | None]:
    """Column of the schema for each cell of the header; None for one to ignore."""
    if missing := [name for name in REQUIRED if name not in header]:
        raise DataError(
            f"{path}: is no result file of bench: its first line has no column {', '.join(missing)}"
        )
    return [BY_NAME.get(name) for name in header]


def _check_version(version: object, *, path: str, line: int) -> None:
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
    data = unmarked(data, what=str(path))
    if not data:
        raise DataError(f"{path}: is empty")
    if data.find(b"\r\n") + 1 == data.find(b"\n") > 0:
        # Not as we write it, so no crash cut the last line: some programs end it with nothing.
        data = data.rstrip(b"\r\n") + b"\r\n"
    try:
        whole = complete_length(data)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    text = decoded(data[: whole or len(data)], what=str(path))
    if whole == 0:
        raise DataError(f"{path}: is no result file of bench: it has no complete header line")
    if whole < len(data):
        line = data.count(b"\n", 0, whole) + 1
        note(f"{path}: line {line} was cut short and is ignored")
    return text


def _value(cell: str, column: Column, where: Place, mark: str | None) -> Value:
    table, line = where
    text = plain_number(cell, mark=mark) if mark is not None and _is_number(column) else cell
    try:
        if column.kind == "str" and column.name in _HASHES and _NUMBER_OF_HASH.fullmatch(text):
            raise ValueError(
                "a spreadsheet or a script made a number of this hash, which cannot be undone; "
                "give the file as it was before"
            )
        value = parse_cell(text, column)
        if value is None and column.name in REQUIRED:
            raise ValueError("must not be blank")
        if column.name == "status" and value not in _STATUSES:
            raise ValueError(f"expected one of {', '.join(_STATUSES)}")
    except ValueError as error:
        raise _damaged(cell, column, where, str(error)) from error
    if column.name == "schema_version":
        _check_version(value, path=table.what, line=line)
    return value


def _damaged(cell: str, column: Column, where: Place, why: str) -> DataError:
    table, line = where
    if column.kind in ("int", "float", "utc"):
        if table.separator != ",":
            why += f"; separated by {SEPARATORS[table.separator]}: {HOW_TO_SAVE}"
        elif _REWRITTEN.search(cell):
            why += f"; rewritten by a spreadsheet? {HOW_TO_SAVE}"
    return DataError(f"{table.what}: line {line}, column {column.name}: {cell[:40]!r}: {why}")
