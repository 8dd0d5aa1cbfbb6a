"""Read and check a Medical Segmentation Decathlon folder, with nibabel and numpy only.

Layout (http://medicaldecathlon.com, arXiv:1902.09063): dataset.json lists the labels, the
modalities and the training cases as pairs of NIfTI files. `check_folder` is called before anything
is timed: it reads each file that would be used to its last byte and names the first one that is
wrong. Test images, which have no labels, are not used.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.core.errors import DataError

DAMAGE = (OSError, EOFError, ValueError, MemoryError, OverflowError, zlib.error)
"""What reading a damaged file raises, beside nibabel's own errors."""
SHORTEST_NIFTI_BYTES = 352
"""Header and extension flag of NIfTI-1: https://nifti.nimh.nih.gov/nifti-1"""


_Names = Annotated[dict[str, Any], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image with its label."""

    image: Path
    label: Path


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What dataset.json says: names of the classes and of the modalities by number, and cases."""

    labels: _Names
    modality: _Names
    training: Annotated[tuple[Case, ...], msgspec.Meta(min_length=1)]

    @property
    def is_ct(self) -> bool:
        """Whether intensities are Hounsfield units."""
        return str(self.modality["0"]).upper().startswith("CT")

    def split(self, cases: int) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Return at most `cases` for training and a quarter as many, others, for validation.

        A folder of one case serves as both.
        """
        if len(self.training) == 1:
            return self.training, self.training
        # Every fifth case is held out, as in nnU-Net's five-fold split.
        held_out = self.training[::5]
        rest = tuple(case for index, case in enumerate(self.training) if index % 5)
        return rest[:cases], held_out[: max(cases // 4, 1)]


def read_folder(root: Path) -> Folder:
    """Parse dataset.json; `DataError` names what is missing. Files are not opened."""
    path = root / "dataset.json"
    if not root.is_dir():
        raise DataError(f"--data {root} is not a folder; a Decathlon folder holds dataset.json")
    if not path.is_file():
        raise DataError(f"{path} is missing; `bench data phantom OUT` writes a valid folder")

    def in_root(_: type, name: object) -> Path:
        if not isinstance(name, str):
            raise TypeError(f"Expected a file name, got {name!r}")
        return root / name

    try:
        folder = msgspec.json.decode(path.read_bytes(), type=Folder, dec_hook=in_root)
    except msgspec.ValidationError as error:
        raise DataError(
            f'{path}: {error}; it needs "labels" and "modality", such as {{"0": "background"}}, '
            'and "training", a list of {"image": ..., "label": ...}'
        ) from error
    except (msgspec.DecodeError, OSError) as error:
        raise DataError(f"{path} is not readable JSON: {error}") from error
    for key, names in (("labels", folder.labels), ("modality", folder.modality)):
        if names.keys() != set(map(str, range(len(names)))):
            raise DataError(f'{path}: "{key}" must be numbered 0 to {len(names) - 1} without gaps')
    return folder


def check_folder(root: Path, *, classes: int, channels: int, cases: int) -> None:
    """Raise `DataError` for the first file that training or inference could not use."""
    folder = read_folder(root)
    _check_parameters(folder, root=root, classes=classes, channels=channels)
    for case in folder.training:
        for path in (case.image, case.label):
            if not path.is_file():
                raise DataError(f"{path} is missing, though {root / 'dataset.json'} lists it")
    training, validation = folder.split(cases)
    for case in dict.fromkeys(training + validation):
        check_case(case, classes=classes, channels=channels)


def _check_parameters(folder: Folder, *, root: Path, classes: int, channels: int) -> None:
    found = {"classes": len(folder.labels), "channels": len(folder.modality)}
    if found["classes"] < 2:
        raise DataError(f"{root / 'dataset.json'} names no class beside the background")
    wrong = found.items() - {"classes": classes, "channels": channels}.items()
    if wrong:
        flags = " ".join(f"--set {key}={value}" for key, value in sorted(wrong, reverse=True))
        raise DataError(
            f"{root / 'dataset.json'} names the classes {_listed(folder.labels)} and the"
            f" modalities {_listed(folder.modality)}, but the workload has classes={classes}"
            f" and channels={channels}; add {flags}"
        )


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(map(str, names.values()))


def check_case(case: Case, *, classes: int, channels: int) -> None:
    """Raise `DataError` if the two files are damaged or do not belong together."""
    image, image_affine = _load(case.image)
    label, label_affine = _load(case.label)
    space = image.shape[:3]
    if image.ndim == 2 or min(space, default=0) < 2:
        raise DataError(f"{case.image} has shape {_text(image)}: a 2-D image, not a volume")
    if image.ndim not in (3, 4) or (image.shape[3] if image.ndim == 4 else 1) != channels:
        raise DataError(
            f"{case.image} has shape {_text(image)}, not a volume of {channels} channel(s)"
        )
    if label.shape not in (space, (*space, 1)):
        raise DataError(f"{case.label} has shape {_text(label)} but its image {_text(image)}")
    if not np.allclose(image_affine, label_affine, atol=1e-2):
        raise DataError(f"{case.label} lies elsewhere than its image (the affines differ)")
    _check_values(image, label, case=case, classes=classes)


def _check_values(image: NDArray[Any], label: NDArray[Any], *, case: Case, classes: int) -> None:
    if not np.isfinite(image).all():
        raise DataError(f"{case.image} holds values that are not finite (NaN or infinity)")
    if image.min() == image.max():
        raise DataError(f"{case.image} is empty: every voxel is {image.flat[0]:g}")
    if not np.isfinite(label).all() or (label != np.round(label)).any():
        raise DataError(f"{case.label} holds values that are not whole numbers")
    if label.min() < 0 or label.max() >= classes:
        worst = label.min() if label.min() < 0 else label.max()
        raise DataError(
            f"{case.label} holds label {worst:g}; dataset.json allows 0 to {classes - 1}"
        )


def _text(array: NDArray[Any]) -> str:
    return " x ".join(map(str, array.shape))


def _load(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return voxels and affine, after reading the whole file (nibabel skips gzip's checksum)."""
    from nibabel import Nifti1Image, Nifti2Image
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        if len(raw) < SHORTEST_NIFTI_BYTES:
            raise ValueError(f"it holds {len(raw)} bytes")
        # NIfTI-1 and NIfTI-2 start with the length of their header, in either byte order.
        is_second = 540 in (int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big"))
        volume = (Nifti2Image if is_second else Nifti1Image).from_bytes(raw)
        array = np.asanyarray(volume.dataobj)
        affine = np.asarray(volume.affine, dtype=np.float64)
    except (*DAMAGE, ImageFileError, HeaderDataError, WrapStructError) as error:
        detail = str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read as NIfTI: {detail}") from error
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise DataError(f"{path} has no valid affine (position and spacing of the voxels)")
    return array, affine


def median_spacing_mm(cases: tuple[Case, ...]) -> tuple[float, float, float]:
    """Return the median voxel size along the right, anterior and superior axes; reads headers."""
    import nibabel
    from nibabel.affines import voxel_sizes

    sizes = np.empty((len(cases), 3))
    for row, case in zip(sizes, cases, strict=True):
        affine = nibabel.load(case.image).affine
        # Row of the patient axis (0 right, 1 anterior, 2 superior) of each array axis.
        row[nibabel.io_orientation(affine)[:, 0].astype(int)] = voxel_sizes(affine)
    x, y, z = np.median(sizes, axis=0)
    return float(x), float(y), float(z)
