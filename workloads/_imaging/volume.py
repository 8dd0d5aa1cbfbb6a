"""The one reader of a volume's file: where its voxels lie and what they hold, with nibabel.

Checks, spacing and prepared voxels all come from here, so that no two of them differ. A NIfTI file
gives the size of its voxels twice: as pixdim, which ITK and nnU-Net go by, and in the sform, which
nibabel, FSL and MONAI go by. A file whose two sizes differ by more than 1 % is refused. Voxels are
one plain number each and become float32; a file is unzipped by its content, whatever its name.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import DataError

DAMAGE = (OSError, EOFError, ValueError, MemoryError, OverflowError, zlib.error)
"""What reading a damaged file raises, beside nibabel's own errors."""
SHORTEST_NIFTI_BYTES = 352
"""Header and extension flag of NIfTI-1: https://nifti.nimh.nih.gov/nifti-1"""
LONGEST_HEADER_BYTES = 540
"""Of NIfTI-2: https://nifti.nimh.nih.gov/nifti-2"""
MAX_SIZE_DIFFERENCE_FRAC = 0.01
"""Between the two sizes of a voxel; more than rounding, less than any other spacing."""


def read_channels(paths: tuple[Path, ...]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return CXYZ voxels and the affine of one file, or of several that lie at the same place."""
    parts: list[NDArray[np.float32]] = []
    affines: list[NDArray[np.float64]] = []
    for path in paths:
        voxels, affine = _read(path)
        parts.append(voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, 3, 0))
        affines.append(affine)
        if parts[-1].shape[1:] != parts[0].shape[1:] or not is_same_place(affine, affines[0]):
            raise DataError(
                f"{path} is not the same volume as {paths[0]} (shape or affine differ), though both"
                " are channels of one case"
            )
    return parts[0] if len(parts) == 1 else np.concatenate(parts), affines[0]


def is_same_place(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether two affines agree within a hundredth of a millimetre."""
    return np.allclose(first, second, atol=1e-2)


def read_affine(path: Path) -> NDArray[np.float64]:
    """Return where the voxels lie, from the header alone."""
    with _reading(path):
        return _affine(_bytes(path, most=LONGEST_HEADER_BYTES), path=path)


def read_shape(path: Path) -> tuple[int, ...]:
    """Return the voxels along the array's first three axes, from the header alone."""
    with _reading(path):
        raw = _bytes(path, most=LONGEST_HEADER_BYTES)
        header_class = _image_class(raw).header_class
        header = header_class(raw[: header_class.sizeof_hdr])
        return tuple(map(int, header.get_data_shape()[:3]))


def _read(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return voxels and affine, after reading the whole file (nibabel skips gzip's checksum)."""
    with _reading(path):
        raw = _bytes(path)
        if len(raw) < SHORTEST_NIFTI_BYTES:
            raise ValueError(f"it holds {len(raw)} bytes")
        volume = _image_class(raw).from_bytes(raw)
        _check_type(volume.header.get_data_dtype(), path=path)
        shape = volume.shape
        if len(shape) < 3 or min(shape[:3]) < 2:
            raise DataError(f"{path} has shape {shape_text(shape)}: a 2-D image, not a volume")
        if len(shape) > 4:
            raise DataError(
                f"{path} has shape {shape_text(shape)}, not a volume: channels are the fourth axis,"
                " and there is no fifth"
            )
        affine = _affine(raw, path=path)
        return np.asanyarray(volume.dataobj).astype(np.float32), affine


def shape_text(shape: tuple[int, ...]) -> str:
    """Return '64 x 64 x 40'."""
    return " x ".join(map(str, shape))


def _check_type(dtype: np.dtype[Any], *, path: Path) -> None:
    if dtype.kind in "iuf":
        return
    what = f"colours ({', '.join(dtype.names)})" if dtype.names else f"of type {dtype.name}"
    raise DataError(
        f"{path}: its voxels are {what}, not one plain number each; save them as int16 or float32"
        " (several channels: along the fourth axis)"
    )


def _affine(raw: bytes, *, path: Path) -> NDArray[np.float64]:
    from nibabel.affines import voxel_sizes

    header_class = _image_class(raw).header_class
    header = header_class(raw[: header_class.sizeof_hdr])
    # As it is in the file: nibabel's own check puts 1 in place of 0.
    stored = header_class(raw[: header_class.sizeof_hdr], check=False)
    pixdim_mm = np.abs(stored["pixdim"][1:4].astype(float))
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    has_sform = header["sform_code"] > 0
    is_valid = np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 1e-9
    if not is_valid or not (has_sform or pixdim_mm.all()):
        raise DataError(f"{path} has no valid affine (position and spacing of the voxels)")
    sizes_mm = voxel_sizes(affine)
    if has_sform and not np.allclose(sizes_mm, pixdim_mm, rtol=MAX_SIZE_DIFFERENCE_FRAC, atol=0):
        texts = [" x ".join(f"{size:.4g}" for size in sizes) for sizes in (pixdim_mm, sizes_mm)]
        raise DataError(
            f"{path} contradicts itself: a voxel is {texts[0]} mm by its pixdim and {texts[1]} mm"
            " by its sform; correct the header, or leave the case out"
        )
    return affine


def _bytes(path: Path, *, most: int = -1) -> bytes:
    with path.open("rb") as file:
        is_zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not is_zipped:
            return file.read(most)
        if most < 0:
            return gzip.decompress(file.read())
        with gzip.open(file) as unzipped:
            return unzipped.read(most)


def _image_class(raw: bytes) -> Any:
    from nibabel import Nifti1Image, Nifti2Image

    # NIfTI-1 and NIfTI-2 start with the length of their header, in either byte order.
    is_second = 540 in (int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big"))
    return Nifti2Image if is_second else Nifti1Image


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in what damage raises; nibabel prints nothing of its own."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.imageglobals import logger
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    level = logger.level
    logger.setLevel("CRITICAL")
    try:
        with np.errstate(all="ignore"):
            yield
    except (*DAMAGE, ImageFileError, HeaderDataError, WrapStructError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as NIfTI: {detail}") from error
    finally:
        logger.setLevel(level)
