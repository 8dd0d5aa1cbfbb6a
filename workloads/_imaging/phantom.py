"""CT-like phantoms: a body, a spine, gas, organs and lesions, in Hounsfield units, with labels.

Every structure is an ellipsoid, so its true volume is known, and a net that learns must raise its
Dice. The scanner is a blur of about two voxels and white noise. Coordinates run from -1 to 1 across
the field of view, so that a phantom looks alike at every resolution. Not a model of anatomy: no
texture, no partial volume beyond the blur, no beam hardening.

`write` makes a Medical Segmentation Decathlon folder of real NIfTI files of them, to try and test
the path of real data offline. Spacing is anisotropic and differs by case, and every second case is
stored left-posterior-superior as converted DICOM is, so that resampling and reorientation have
something to do.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError

# Typical values at 120 kV: https://radiopaedia.org/articles/hounsfield-unit
AIR_HU, GAS_HU, FAT_HU, SOFT_TISSUE_HU, BONE_HU = -1000.0, -900.0, -100.0, 60.0, 600.0
ORGAN_HU = (110.0, 170.0)  # contrast-enhanced parenchyma; organs spread over the range
LESION_HU = 220.0  # enhancing, as in the arterial phase; still within the soft-tissue window
NOISE_HU = 20.0  # standard deviation in a soft-tissue reconstruction at diagnostic dose
FIELD_OF_VIEW_MM = 360.0  # across a body, as in abdominal CT
SLICE_FACTOR = 1.6  # how much longer a voxel is along the body than across it


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """One structure; lengths in half fields of view."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    hu: float
    label: int = 0


def anatomy(rng: np.random.Generator, *, classes: int) -> list[Ellipsoid]:
    """Draw one patient: structures in order of painting, later ones on top.

    Labels: 0 background, 1 .. classes-2 organs, classes-1 lesions of organ 1. With two classes the
    lesions belong to the organ.
    """
    if classes < 2:
        raise ValueError(f"a phantom needs classes >= 2 (background and an organ), not {classes}")
    size = rng.uniform(0.92, 1.0)
    wide, deep = 0.92 * size, 0.78 * size
    # Height over 1: the body goes on beyond the field of view, as in a scan.
    parts = [
        Ellipsoid(centre=(0.0, 0.0, 0.0), radii=(wide, deep, 2.5), hu=FAT_HU),
        Ellipsoid(centre=(0.0, 0.0, 0.0), radii=(wide - 0.08, deep - 0.08, 2.4), hu=SOFT_TISSUE_HU),
        Ellipsoid(centre=(0.0, -0.55, 0.0), radii=(0.12, 0.12, 2.0), hu=BONE_HU),
        Ellipsoid(centre=(-0.1, 0.5, rng.uniform(-0.6, 0.6)), radii=(0.1, 0.07, 0.2), hu=GAS_HU),
    ]
    count = max(classes - 2, 1)
    organs = [_organ(rng, index=index, count=count) for index in range(count)]
    lesions = [_lesion(rng, of=organs[0], label=classes - 1) for _ in range(rng.integers(2, 4))]
    return [*parts, *organs, *lesions]


def _organ(rng: np.random.Generator, *, index: int, count: int) -> Ellipsoid:
    """Organs stand in a ring, far enough apart not to touch; a single one beside the middle."""
    angle = 2 * math.pi * index / count
    distance = 0.2 if count == 1 else 0.42
    radius = 0.42 if count == 1 else min(0.32, 0.38 * math.sin(math.pi / count))
    low, high = ORGAN_HU
    jitter = rng.uniform(-0.04, 0.04, size=3)
    a, b, c = (float(share) * radius for share in rng.uniform(0.85, 1.0, size=3))
    return Ellipsoid(
        centre=(
            distance * math.cos(angle) + jitter[0],
            0.9 * distance * math.sin(angle) + jitter[1],
            4 * jitter[2],
        ),
        radii=(a, b, 1.3 * c),
        hu=low + (high - low) * index / max(count - 1, 1),
        label=index + 1,
    )


def _lesion(rng: np.random.Generator, *, of: Ellipsoid, label: int) -> Ellipsoid:
    share = rng.uniform(0.35, 0.5)
    direction = rng.normal(size=3)
    offset = direction / np.linalg.norm(direction) * rng.uniform(0.2, 0.95 - share)
    x, y, z = of.centre + of.radii * offset
    a, b, c = (share * radius for radius in of.radii)
    return Ellipsoid(centre=(x, y, z), radii=(a, b, c), hu=LESION_HU, label=label)


def phantom(
    *, shape: tuple[int, ...], classes: int, seed: int, index: int, channels: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return CXYZ image (a scan per channel, own noise) and XYZ labels of patient `index`."""
    rng = np.random.default_rng([seed, index])
    clean, label = paint(anatomy(rng, classes=classes), shape=shape)
    for axis in range(3):
        clean = _blurred(clean, axis=axis)
    noise = rng.standard_normal((channels, *shape), dtype=np.float32) * np.float32(NOISE_HU)
    return np.maximum(clean + noise, np.float32(-1024.0)), label


def paint(
    parts: list[Ellipsoid], *, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return HU without blur or noise, and labels, at `shape` voxels."""
    image = np.full(shape, AIR_HU, dtype=np.float32)
    label = np.zeros(shape, dtype=np.uint8)
    for part in parts:
        box, terms = [], []
        for size, centre, radius in zip(shape, part.centre, part.radii, strict=True):
            first = max(int((centre - radius + 1) / 2 * size) - 1, 0)
            last = min(int((centre + radius + 1) / 2 * size) + 2, size)
            middles = (np.arange(first, last, dtype=np.float32) + 0.5) * (2 / size) - 1
            terms.append(((middles - centre) / radius) ** 2)
            box.append(slice(first, last))
        x, y, z = np.ix_(*terms)
        inside = x + y + z <= 1
        image[tuple(box)][inside] = part.hu
        label[tuple(box)][inside] = part.label
    return image, label


def _blurred(image: NDArray[np.float32], *, axis: int) -> NDArray[np.float32]:
    """Convolve with (1, 2, 1) / 4 along an axis, the edge repeated."""
    wide = np.pad(np.moveaxis(image, axis, 0), ((1, 1), (0, 0), (0, 0)), mode="edge")
    result = 0.5 * wide[1:-1] + 0.25 * wide[:-2] + 0.25 * wide[2:]
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))


# A folder of them ------------------------------------------------------------------------------


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
    spacing_mm = np.array([across_mm, across_mm, SLICE_FACTOR * across_mm]) * rng.uniform(0.9, 1.1)
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
