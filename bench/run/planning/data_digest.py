"""What a row says about the data behind --data: a digest of names and content, without its place.

Of a large file the first, middle and last parts and the size are read: a zipped file ends with its
checksum, so that any change shows. Digests are kept in the cache folder for as long as a file's
inode, size and time are the same. Hidden files, which systems add by themselves, are left out.
Rows made before this file existed have a digest of names and sizes, with another prefix, so that
the two never compare as equal.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from bench.core.errors import DataError
from bench.core.paths import cache_folder, user_path, write_whole

BY_SIZES = "files-"
"""Prefix of the digests of names and sizes in older rows."""
PART_BYTES = 256 * 1024
SETTLED_S = 2.0
"""A file changed more recently could change again within one tick of its file system's clock."""
_BY_SYSTEMS = {"Thumbs.db", "desktop.ini", "__MACOSX"}

_Stamp = tuple[int, int, int]
_Known = dict[str, tuple[_Stamp, str]]


def digest_of(data: str) -> str:
    """Return 'generated', 'resident' or the digest of a file or folder."""
    if data in ("resident", "generated"):
        return data
    root = user_path(data, what="--data")
    digest, kept = hashlib.sha256(), _kept_in(root)
    known, found = _read(kept), _Known()
    try:
        for name, path in sorted(_files(root)):
            status = path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            before = known.get(name)
            content = before[1] if before and before[0] == stamp else _content_digest(path)
            if time.time() - status.st_mtime > SETTLED_S:
                found[name] = (stamp, content)
            digest.update(os.fsencode(f"{name}\0{content}\0"))
    except OSError as error:
        raise DataError(f"--data {error.filename}: cannot be read: {error.strerror}") from error
    if found != known:
        # Not where the folder is read-only, nor for a name that is no text.
        with suppress(OSError, UnicodeEncodeError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, msgspec.json.encode(found))
    return f"content-{digest.hexdigest()[:12]}"


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Visible files below a folder with their names, through links to folders, each once."""
    if root.is_file():
        yield root.name, root
        return

    def refuse(error: OSError) -> None:
        raise error

    visited: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        folders[:] = sorted(filter(_is_visible, folders))
        if (real := os.path.realpath(folder)) in visited:
            folders.clear()
            continue
        visited.add(real)
        for name in filter(_is_visible, names):
            path = Path(folder, name)
            if path.is_file():
                yield path.relative_to(root).as_posix(), path


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name not in _BY_SYSTEMS


def _content_digest(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        is_short = size <= 3 * PART_BYTES
        for start in (0,) if is_short else (0, (size - PART_BYTES) // 2, size - PART_BYTES):
            file.seek(start)
            digest.update(file.read(size if is_short else PART_BYTES))
    return digest.hexdigest()[:24]


# Kept digests: without a place for them, each run reads the files again -------------------------


def _kept_in(root: Path) -> Path:
    with suppress(OSError, RuntimeError):  # no home
        place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]
        return cache_folder() / "data" / f"{place}.json"
    return Path(os.devnull)


def _read(kept: Path) -> _Known:
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(kept.read_bytes(), type=_Known)
    return {}
