"""Whether pandas and Python's csv module surely see the same cells in the bytes of a result file.

pandas pads short rows, takes 'nan' for a number and stops at a NUL. A file without any of that is
plain, and may be read fast; about any other one the exact reader decides. Everything works on whole
arrays of bytes, a piece at a time, since files may have 100 MB.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Index = NDArray[np.int64]

_PIECE_BYTES = 1 << 18  # what a processor keeps near
_PIECE_PAIRS = 1 << 15
_QUOTE, _COMMA, _LINE_END = ord('"'), ord(","), ord("\n")
_N, _A = ord("n"), ord("a")
_LOWER = 0x20  # the bit by which small letters differ from large ones
_NEAR = 64
"""Bytes that are looked at on each side of the letters 'nan'."""
_BEFORE, _AFTER = b',\n"', b',\r\n"'
"""What ends a cell; an empty text is in both."""
_BLANKS = b" \t\x0b\x0c"


def is_plain(data: bytes) -> bool:
    """Whether these bytes hold nothing that pandas would forgive or misread."""
    if b"\0" in data or b"\r" in data or not data.endswith(b"\n"):
        return False
    cells = np.frombuffer(data, dtype=np.uint8)
    if _has_nan(data, cells=cells):
        return False
    width = data.count(b",", 0, data.find(b"\n"))
    counts = count_unquoted(cells)
    # pandas pads short rows and refuses long ones, so equal totals mean that no row is short.
    return counts is not None and counts[0] == counts[1] * width


def count_unquoted(cells: "Bytes") -> tuple[int, int] | None:
    """Commas and line ends outside quotes; None where a quote stands in the midst of a cell."""
    num_commas = num_lines = 0
    found = []
    for start, piece in _pieces(cells):
        num_commas += int(np.count_nonzero(piece == _COMMA))
        num_lines += int(np.count_nonzero(piece == _LINE_END))
        found.append(np.flatnonzero(piece == _QUOTE) + start)
    quotes = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    if len(quotes) % 2:
        return None
    opens, closes = quotes[0::2], quotes[1::2]
    if not (_is_edge(cells[opens[opens > 0] - 1]) and _is_edge(_following(cells, closes))):
        return None
    for inside in _insides(cells, opens=opens, closes=closes):
        num_commas -= int(np.count_nonzero(inside == _COMMA))
        num_lines -= int(np.count_nonzero(inside == _LINE_END))
    return num_commas, num_lines


def _pieces(cells: "Bytes", *, overlap: int = 0) -> "Iterator[tuple[int, Bytes]]":
    for start in range(0, len(cells), _PIECE_BYTES):
        yield start, cells[start : start + _PIECE_BYTES + overlap]


def _following(cells: "Bytes", places: "Index") -> "Bytes":
    return cells[np.minimum(places + 1, len(cells) - 1)]


def _is_edge(beside: "Bytes") -> bool:
    """Whether all of what stands beside quotes, on the outside, may stand there."""
    return bool(((beside == _COMMA) | (beside == _LINE_END) | (beside == _QUOTE)).all())


def _insides(cells: "Bytes", *, opens: "Index", closes: "Index") -> "Iterator[Bytes]":
    """What stands between quotes, the texts of many pairs of them joined."""
    for first in range(0, len(opens), _PIECE_PAIRS):
        starts = opens[first : first + _PIECE_PAIRS] + 1
        lengths = closes[first : first + _PIECE_PAIRS] - starts
        ends = np.cumsum(lengths)
        yield cells[np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)]


def _has_nan(data: bytes, *, cells: "Bytes") -> bool:
    """Whether a cell, or a word that stands at the edge of one, is 'nan': blank to pandas."""
    for start, piece in _pieces(cells, overlap=2):
        small = piece | _LOWER
        is_nan = (small[:-2] == _N) & (small[1:-1] == _A) & (small[2:] == _N)
        for place in np.flatnonzero(is_nan):
            if _is_nan_cell(data, place=start + int(place)):
                return True
    return False


def _is_nan_cell(data: bytes, *, place: int) -> bool:
    """Whether the letters at `place` are all of a cell, blanks, sign and quotes aside."""
    before = data[max(place - _NEAR, 0) : place].rstrip(_BLANKS)
    if before.endswith((b"+", b"-")):
        before = before[:-1].rstrip(_BLANKS)
    after = data[place + 3 : place + 3 + _NEAR].lstrip(_BLANKS)
    # Nothing but blanks as far as we look is taken for an edge too: the exact reader will see.
    return before[-1:] in _BEFORE and after[:1] in _AFTER
