"""One picture in a file: its size, and its colours, with Pillow. Torch-free.

A file that is none is named in one line, whatever Pillow raises. Left out: depth over 8 bits, which
Pillow cuts, and the turn that EXIF asks for, since boxes of the usual data sets ignore it too.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
NUM_PICTURES_READ = 1000
"""Pictures that a check reads to their last byte; a broken one behind them is named when it is
loaded."""

Pixels = npt.NDArray[np.uint8]


def pictures_in(folder: Path) -> tuple[Path, ...]:
    """Return the pictures that lie in a folder, by name; hidden files and folders are none."""
    with os.scandir(folder) as entries:
        names = sorted(one.name for one in entries if one.name[0] != "." and one.is_file())
    return tuple(path for path in map(folder.joinpath, names) if path.suffix.lower() in SUFFIXES)


def picture_size(path: Path) -> tuple[int, int]:
    """Return width and height, from the head of the file."""
    with _opened(path) as picture:
        width, height = picture.size
        return int(width), int(height)


def read_picture(path: Path, *, size: tuple[int, int] | None = None) -> Pixels:
    """Return (height, width, 3) colours, stretched to a size (width, height) where one is given."""
    with _opened(path) as picture:
        colours = picture.convert("RGB")
        if size is not None and colours.size != size:
            colours = colours.resize(size)
        return np.asarray(colours).copy()  # Pillow's own memory is read-only


def read_whole(paths: Iterable[Path]) -> None:
    """Raise `DataError` for the first of these files that is no whole picture."""
    for path, _ in zip(paths, range(NUM_PICTURES_READ), strict=False):
        read_picture(path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    kinds = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
    try:
        with Image.open(path) as picture:
            yield picture
    except (*kinds, Image.DecompressionBombError) as error:
        detail = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"{path} cannot be read as a picture: {detail}") from error
