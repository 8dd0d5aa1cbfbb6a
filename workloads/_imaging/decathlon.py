"""Read and check a Medical Segmentation Decathlon folder, with nibabel and numpy only.

Layout (http://medicaldecathlon.com, arXiv:1902.09063): dataset.json lists the labels, the
modalities and the training cases as pairs of NIfTI files. `check_folder` is called before anything
is timed: it reads each file that would be used to its last byte and names the first one that is
wrong. Test images, which have no labels, are not used.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import DataError

SHORTEST_NIFTI_BYTES = 352
"""Header and extension flag of NIfTI-1: https://nifti.nimh.nih.gov/nifti-1"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image with its label."""

    image: Path
    label: Path


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What dataset.json says."""

    cases: tuple[Case, ...]
    labels: tuple[str, ...]
    """Names of the classes, background first."""
    modalities: tuple[str, ...]

    @property
    def is_ct(self) -> bool:
        """Whether intensities are Hounsfield units."""
        return self.modalities[0].upper().startswith("CT")

    def split(self, cases: int) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Return at most `cases` for training and a quarter as many, others, for validation.

        A folder of one case serves as both.
        """
        if len(self.cases) == 1:
            return self.cases, self.cases
        # Every fifth case is held out, as in nnU-Net's five-fold split.
        held_out = self.cases[::5]
        rest = tuple(case for index, case in enumerate(self.cases) if index % 5)
        return rest[:cases], held_out[: max(cases // 4, 1)]


def read_folder(root: Path) -> Folder:
    """Parse dataset.json; `DataError` names what is missing. Files are not opened."""
    path = root / "dataset.json"
    if not root.is_dir():
        raise DataError(f"--data {root} is not a folder; a Decathlon folder holds dataset.json")
    if not path.is_file():
        raise DataError(f"{path} is missing; `bench data phantom OUT` writes a valid folder")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold an object, not {type(content).__name__}")
    return Folder(
        cases=_cases(content, path=path),
        labels=_numbered(content, key="labels", path=path),
        modalities=_numbered(content, key="modality", path=path),
    )


def _numbered(content: Mapping[str, Any], *, key: str, path: Path) -> tuple[str, ...]:
    names = content.get(key)
    if not isinstance(names, dict) or not names:
        raise DataError(f'{path} lacks "{key}", an object such as {{"0": "background"}}')
    expected = [str(index) for index in range(len(names))]
    if sorted(names) != sorted(expected):
        raise DataError(f'{path}: "{key}" must be numbered 0 to {len(names) - 1} without gaps')
    return tuple(str(names[index]) for index in expected)


def _cases(content: Mapping[str, Any], *, path: Path) -> tuple[Case, ...]:
    entries = content.get("training")
    if not isinstance(entries, list) or not entries:
        raise DataError(f'{path} lacks "training", a list of {{"image": ..., "label": ...}}')
    cases = []
    for number, entry in enumerate(entries):
        for key in ("image", "label"):
            if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
                raise DataError(f'{path}: training case {number} lacks "{key}", a file name')
        cases.append(Case(image=path.parent / entry["image"], label=path.parent / entry["label"]))
    return tuple(cases)


def check_folder(root: Path, *, classes: int, channels: int, cases: int) -> None:
    """Raise `DataError` for the first file that training or inference could not use."""
    folder = read_folder(root)
    _check_parameters(folder, root=root, classes=classes, channels=channels)
    for case in folder.cases:
        for path in (case.image, case.label):
            if not path.is_file():
                raise DataError(f"{path} is missing, though {root / 'dataset.json'} lists it")
    training, validation = folder.split(cases)
    for case in dict.fromkeys(training + validation):
        check_case(case, classes=classes, channels=channels)


def _check_parameters(folder: Folder, *, root: Path, classes: int, channels: int) -> None:
    found = {"classes": len(folder.labels), "channels": len(folder.modalities)}
    wrong = {
        key: value
        for key, value in found.items()
        if value != {"classes": classes, "channels": channels}[key]
    }
    if found["classes"] < 2:
        raise DataError(f"{root / 'dataset.json'} names no class beside the background")
    if wrong:
        flags = " ".join(f"--set {key}={value}" for key, value in wrong.items())
        raise DataError(
            f"{root / 'dataset.json'} names the classes {', '.join(folder.labels)} and the"
            f" modalities {', '.join(folder.modalities)}, but the workload has classes={classes}"
            f" and channels={channels}; add {flags}"
        )


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
        kind = Nifti2Image if b"\x1c" in raw[:4] and 540 in _lengths(raw) else Nifti1Image
        volume = kind.from_bytes(raw)
        array = np.asanyarray(volume.dataobj)
        affine = np.asarray(volume.affine, dtype=np.float64)
    except (
        OSError,
        EOFError,
        ValueError,
        MemoryError,
        OverflowError,
        zlib.error,
        ImageFileError,
        HeaderDataError,
        WrapStructError,
    ) as error:
        detail = str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read as NIfTI: {detail}") from error
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise DataError(f"{path} has no valid affine (position and spacing of the voxels)")
    return array, affine


def _lengths(raw: bytes) -> set[int]:
    return {int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big")}


def median_spacing_mm(cases: tuple[Case, ...]) -> tuple[float, float, float]:
    """Return the median voxel size along the right, anterior and superior axes; reads headers."""
    import nibabel
    from nibabel.affines import voxel_sizes

    sizes = []
    for case in cases:
        affine = nibabel.load(case.image).affine
        # Row of the patient axis (0 right, 1 anterior, 2 superior) of each array axis.
        axes = nibabel.io_orientation(affine)[:, 0].astype(int)
        in_patient_order = np.empty(3)
        in_patient_order[axes] = voxel_sizes(affine)
        sizes.append(in_patient_order)
    x, y, z = np.median(sizes, axis=0)
    return float(x), float(y), float(z)
