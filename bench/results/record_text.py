"""A result file's text: one cell from value to text and back, and records to bytes.

RFC 4180 with a line feed, UTF-8, '.' as decimal sign. None is a blank cell, and so is an empty
text: a CSV does not know them apart. Text that a spreadsheet would run as a formula gets a leading
apostrophe, which is taken off again when read. NUL and lone surrogates have no place in a UTF-8
file and become U+FFFD: a failed trial's message must never cost its row. A wrong value in a cell is
our own mistake, hence `ValueError`.
"""

import json
import math
import re
from datetime import datetime

from bench.core.separated import NUMBER
from bench.results.schema import Column, Value

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
            return text[1:] if text.startswith("'") and _GUARDED.match(text) else text
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
