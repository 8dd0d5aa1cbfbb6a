"""Every step, loss, event and telemetry sample of a run, beside its rows.

`<stem>.samples.jsonl.gz` holds one line of JSON per trial, each its own gzip member, so that a
crash costs at most the last one and any gzip tool reads the file. Step times keep warm-up steps
apart from those of the window. What a row says can be computed again from here; the row does not
need it. A figure that is not finite (a loss that diverged) is kept as the text nan, inf or -inf,
because JSON has no such numbers.
"""

import gzip
import json
import logging
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench.core.errors import DataError
from bench.results.reader import read_bytes
from bench.results.whole_files import AppendFile

KEYS = ("config_hash", "device", "trial", "attempt")
"""What ties a line to its row."""

_LOG = logging.getLogger(__name__)
_PIECE_BYTES = 1 << 16
_GZIP_WINDOW_BITS = 31
"""zlib: 15 bits of window, plus 16 for a gzip header: https://zlib.net/manual.html#Advanced"""


def append_samples(path: Path, record: Mapping[str, object]) -> None:
    """Add one trial's samples; `ValueError` without `KEYS`, `MeasurementError` on a full disk."""
    if missing := [key for key in KEYS if record.get(key) is None]:
        raise ValueError(f"samples without {', '.join(missing)}")
    line = json.dumps(_finite(record), separators=(",", ":"), allow_nan=False) + "\n"
    member = gzip.compress(line.encode(), compresslevel=6, mtime=0)
    file = AppendFile(path, complete_length=_members_length, note=_LOG.warning, must_exist=False)
    try:
        file.append(member)
    finally:
        file.close()


def read_samples(
    path: Path, *, note: Callable[[str], None] = _LOG.warning
) -> list[dict[str, object]]:
    """Samples of each trial; a last member that a crash cut short is ignored, and `note` called."""
    data = read_bytes(path)
    found = []
    end = 0
    for content, member_end in _members(data):
        try:
            record = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: byte {end}: is not JSON") from error
        if not isinstance(record, dict) or any(key not in record for key in KEYS):
            raise DataError(f"{path}: byte {end}: lacks one of {', '.join(KEYS)}")
        found.append(record)
        end = member_end
    if end < len(data):
        if _is_damaged(data[end:]):
            raise DataError(f"{path}: byte {end}: is not gzip, or is damaged")
        note(f"{path}: the last trial's samples were cut short and are ignored")
    return found


def _members(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Content and end of each whole gzip member, up to the first that is not whole."""
    position = 0
    while position < len(data):
        inflate = zlib.decompressobj(_GZIP_WINDOW_BITS)
        parts = []
        while position < len(data) and not inflate.eof:
            # In pieces, because zlib copies whatever follows the member.
            piece = data[position : position + _PIECE_BYTES]
            try:
                parts.append(inflate.decompress(piece))
            except zlib.error:
                return
            position += len(piece) - len(inflate.unused_data)
        if not inflate.eof:
            return
        yield b"".join(parts), position


def _members_length(data: bytes) -> int:
    return max((end for _, end in _members(data)), default=0)


def _is_damaged(tail: bytes) -> bool:
    """Whether these bytes are wrong, rather than the beginning of a member."""
    try:
        zlib.decompressobj(_GZIP_WINDOW_BITS).decompress(tail)
    except zlib.error:
        return True
    return False


def _finite(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return repr(float(value))
        case float():
            return float(value)
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
