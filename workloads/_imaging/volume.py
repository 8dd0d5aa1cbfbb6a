"""The one reader of a volume's file: where its voxels lie and what they hold, with nibabel.

Checks, spacing and prepared voxels all come from here, so that no two of them differ. A NIfTI file
gives the size of its voxels twice: as pixdim, which ITK and nnU-Net go by, and in the sform, which
nibabel, FSL and MONAI go by. A file whose two sizes differ by more than 1 % is refused. Voxels are
one plain number each and become float32; a file is unzipped by its content, whatever its name.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import DataError

SHORTEST_NIFTI_BYTES = 352
"""Header and extension flag of NIfTI-1: https://nifti.nimh.nih.gov/nifti-1"""
LONGEST_HEADER_BYTES = 540
"""Of NIfTI-2: https://nifti.nimh.nih.gov/nifti-2"""
MAX_SIZE_DIFFERENCE_FRAC = 0.01
"""Between the two sizes of a voxel; more than rounding, less than any other spacing."""

Affine = NDArray[np.float64]


def read_channels(paths: tuple[Path, ...]) -> tuple[NDArray[np.float32], Affine]:
    """Return CXYZ voxels and the affine of one file, or of several that lie at the same place."""
    volumes = [_read(path) for path in paths]
    voxels, place = volumes[0]
    for path, (other, affine) in zip(paths, volumes, strict=True):
        if other.shape[1:] != voxels.shape[1:] or not is_same_place(affine, place):
            raise DataError(
                f"{path} is not the same volume as {paths[0]} (shape or affine differ), though both"
                " are channels of one case"
            )
    return voxels if len(paths) == 1 else np.concatenate([one for one, _ in volumes]), place


def is_same_place(first: Affine, second: Affine) -> bool:
    """Whether two affines agree within a hundredth of a millimetre."""
    return np.allclose(first, second, atol=1e-2)


def read_grid(path: Path) -> tuple[tuple[int, ...], Affine]:
    """Return the voxels along the array's first three axes and their affine; reads the header."""
    with _reading(path):
        raw = _bytes(path, most=LONGEST_HEADER_BYTES)
        header_class = _image_class(raw).header_class
        header = header_class(raw[: header_class.sizeof_hdr])
        return header.get_data_shape()[:3], _affine(header, raw=raw, path=path)


def _read(path: Path) -> tuple[NDArray[np.float32], Affine]:
    """Return CXYZ voxels and affine, after reading the whole file: gzip's checksum counts."""
    with _reading(path):
        raw = _bytes(path)
        if len(raw) < SHORTEST_NIFTI_BYTES:
            raise ValueError(f"it holds {len(raw)} bytes")
        volume = _image_class(raw).from_bytes(raw)
        dtype = volume.header.get_data_dtype()
        if dtype.kind not in "iuf":
            what = f"colours ({', '.join(dtype.names)})" if dtype.names else f"of type {dtype.name}"
            raise DataError(
                f"{path}: its voxels are {what}, not one plain number each; save them as int16 or"
                " float32 (several channels: along the fourth axis)"
            )
        shape = volume.shape
        if len(shape) < 3 or min(shape[:3]) < 2:
            raise DataError(f"{path} has shape {shape_text(shape)}: a 2-D image, not a volume")
        if len(shape) > 4:
            raise DataError(
                f"{path} has shape {shape_text(shape)}, not a volume: channels are the fourth axis,"
                " and there is no fifth"
            )
        affine = _affine(volume.header, raw=raw, path=path)
        voxels = np.asanyarray(volume.dataobj).astype(np.float32)
        return np.moveaxis(voxels.reshape(*shape[:3], -1), 3, 0), affine


def shape_text(shape: tuple[int, ...]) -> str:
    """Return '64 x 64 x 40'."""
    return " x ".join(map(str, shape))


def _affine(header: Any, *, raw: bytes, path: Path) -> Affine:
    from nibabel.affines import voxel_sizes

    # As it is in the file: nibabel's own check puts 1 in place of 0.
    stored = type(header)(raw[: header.sizeof_hdr], check=False)
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
        is_zipped = file.peek(2).startswith(b"\x1f\x8b")
        return (gzip.GzipFile(fileobj=file) if is_zipped else file).read(most)


def _image_class(raw: bytes) -> Any:
    from nibabel import Nifti1Image, Nifti2Image

    is_second = Nifti2Image.header_class.may_contain_header(raw)
    return Nifti2Image if is_second else Nifti1Image


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in what damage raises; nibabel prints nothing of its own."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.imageglobals import logger
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    own = (ImageFileError, HeaderDataError, WrapStructError)
    level = logger.level
    logger.setLevel("CRITICAL")
    try:
        with np.errstate(all="ignore"):
            yield
    except (*own, OSError, EOFError, ValueError, MemoryError, OverflowError, zlib.error) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as NIfTI: {detail}") from error
    finally:
        logger.setLevel(level)
