"""Write phantoms as a Medical Segmentation Decathlon folder of real NIfTI files.

For trying and testing the path that real data takes, offline. Spacing is anisotropic and differs by
case, and every second case is stored left-posterior-superior as converted DICOM is, so that
resampling and reorientation have something to do.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.core.errors import UsageError
from workloads._imaging.phantom import phantom

FIELD_OF_VIEW_MM = 360.0
"""Across a body, as in abdominal CT."""
SLICE_MM = 1.6
"""How much longer a voxel is along the body than across it, as a factor."""


def write(out: Path, *, cases: int, seed: int, shape: tuple[int, ...], classes: int = 3) -> None:
    """Write `cases` labelled phantoms into `out`, which must be new or empty."""
    if cases < 1:
        raise UsageError(f"--cases must be at least 1, not {cases}")
    if len(shape) != 3 or min(shape) < 8:
        raise UsageError(f"--shape needs three sizes of at least 8, such as 64x64x40, not {shape}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder; name a new one")
    try:
        for name in ("imagesTr", "labelsTr", "imagesTs"):
            (out / name).mkdir(parents=True, exist_ok=True)
        names = [_write_case(out, i, seed=seed, shape=shape, classes=classes) for i in range(cases)]
        # Last, so that an interrupted run leaves no folder that looks complete.
        content = _dataset_json(names, classes=classes)
        (out / "dataset.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error}") from error


def _write_case(out: Path, index: int, *, seed: int, shape: tuple[int, ...], classes: int) -> str:
    import nibabel

    image, label = phantom(shape=shape, classes=classes, seed=seed, index=index)
    rng = np.random.default_rng([seed, index, 1])
    across_mm = FIELD_OF_VIEW_MM / shape[0]
    spacing_mm = np.array([across_mm, across_mm, SLICE_MM * across_mm]) * rng.uniform(0.9, 1.1)
    towards = np.array([-1, -1, 1]) if index % 2 else np.array([1, 1, 1])
    affine = np.diag([*(spacing_mm * towards), 1.0])
    affine[:3, 3] = -towards * spacing_mm * np.array(shape) / 2
    name = f"phantom_{index:03d}.nii.gz"
    volumes = {"imagesTr": np.round(image[0]).astype(np.int16), "labelsTr": label}
    for folder, array in volumes.items():
        nifti = nibabel.Nifti1Image(array[:: towards[0], :: towards[1]], affine)
        nifti.header.set_xyzt_units("mm")
        nibabel.save(nifti, out / folder / name)
    return name


def _dataset_json(names: list[str], *, classes: int) -> dict[str, object]:
    organs = [f"organ {number}" for number in range(1, max(classes - 1, 2))]
    labels = ["background", *organs, "lesion"][:classes]
    return {
        "name": "Phantoms",
        "description": "Generated CT-like phantoms with known labels",
        "reference": "gapbench",
        "licence": "CC0-1.0",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(value): name for value, name in enumerate(labels)},
        "numTraining": len(names),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names
        ],
        "test": [],
    }
