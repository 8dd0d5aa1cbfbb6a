"""A table in a text file as people and spreadsheets save it: bytes to records, cells to numbers.

Read without asking, because the file leaves one reading only: a byte order mark, UTF-16, CRLF,
`sep=;` in the first line, semicolons or tabs between cells, quotes around every cell, spaces around
names, blank cells at the end of lines, a decimal comma, thousands set apart. What leaves two
readings, or has lost digits, is refused with file, line and column and with how to save it.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.core.errors import DataError

HOW_TO_SAVE = "in a spreadsheet save as 'CSV UTF-8', or give the file as it was before"
_UTF8, _UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SEP_LINE = re.compile(r'\A"?sep=([,;\t])"?[,;\t]*(?=\r?\n)', re.IGNORECASE)
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?")
_SPACED = re.compile(r"(?<=[0-9])['\u2019\s](?=[0-9]{3})")
_SWAPPED = str.maketrans(".,", ",.")
SHORTENED = re.compile(r"[0-9]([.,][0-9]+)?E[+-][0-9]{2,}")
"""How a spreadsheet shows a long number, and saves it."""


def unmarked(data: bytes, *, what: str) -> bytes:
    """The bytes of a file as UTF-8 without a byte order mark; `DataError` for no text."""
    if data.startswith(_UTF16):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeError:
            raise DataError(f"{what}: is UTF-16 and damaged; {HOW_TO_SAVE}") from None
    data = data.removeprefix(_UTF8)
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def decoded(data: bytes, *, what: str) -> str:
    """Text of UTF-8; `DataError` names the line that is something else."""
    if b"\0" in data:
        raise DataError(f"{what}: is not a CSV in UTF-8: it has NUL bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{what}: line {line} is not UTF-8 text; {HOW_TO_SAVE}") from None


@dataclass(frozen=True, kw_only=True)
class Separated:
    """A table: names of its columns, and its records one by one."""

    what: str
    """The file, for messages."""
    header: tuple[str, ...]
    width: int
    """Cells of the header line, blank ones at its end included."""
    separator: str
    text: str

    @property
    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of each record below the header; blank ones are passed over."""
        width = len(self.header)
        records = _records(self.text, separator=self.separator, what=self.what)
        next(records, None)
        for line, cells in records:
            if not any(cells):
                continue
            if len(cells) == self.width:
                if any(cells[width:]):
                    raise DataError(f"{self.what}: line {line} has a cell without a column name")
                del cells[width:]
            elif len(cells) != width:
                raise DataError(
                    f"{self.what}: line {line} has {len(cells)} cells where the header has {width}"
                )
            yield line, cells


def separated(text: str, *, what: str) -> Separated:
    """The table in a text; `DataError` where no header can be made out."""
    found = _SEP_LINE.match(text)
    # Its line stays, blank, so that later ones keep their numbers.
    text = text[found.end() :] if found else text
    separator = found[1] if found else _separator(text)
    line, cells = next(_records(text, separator=separator, what=what), (1, []))
    header = [cell.strip() for cell in cells]
    while header and not header[-1]:
        header.pop()
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{what}: line {line} has column {twice[0][:40]!r} more than once")
    return Separated(
        what=what, header=tuple(header), width=len(cells), separator=separator, text=text
    )


def _separator(text: str) -> str:
    """What the first line that is not blank has most of, outside quotes."""
    first = re.search(r"\S[^\r\n]*", text)
    outside = "".join(first[0].split('"')[::2]) if first else ""
    return max(SEPARATORS, key=outside.count)


def _records(text: str, *, separator: str, what: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{what}: line {line} is not valid CSV: {error}") from error
        if cells:
            yield line, cells


def plain_number(cell: str, *, mark: str) -> str:
    """A number as Python writes it, out of one with decimal `mark`; no number stays none."""
    text = _SPACED.sub("", cell.strip())
    text = text.translate(_SWAPPED) if mark == "," else text
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text


def decimal_mark(table: Separated, *, numbers: Iterable[str]) -> str:
    """The decimal sign of a file: '.' or ',', whichever more of its numbers allow alone.

    Where every number allows both ('1,234'), semicolons between cells are those of a spreadsheet
    whose decimal sign is the comma; else `DataError`.
    """
    votes, unclear = {".": 0, ",": 0}, ""
    for cell in numbers:
        fits = [mark for mark in votes if NUMBER.fullmatch(plain_number(cell, mark=mark))]
        if len(fits) == 1:
            votes[fits[0]] += 1
        elif fits and "," in cell:
            unclear = cell
    if unclear and not any(votes.values()) and table.separator != ";":
        raise DataError(
            f"{table.what}: {unclear[:40]!r} may be a decimal comma or a thousand; {HOW_TO_SAVE}"
        )
    is_comma = votes[","] > votes["."] or bool(unclear and not votes["."])
    return "," if is_comma else "."
