"""Check a Decathlon or nnU-Net v2 folder, with nibabel and numpy only.

`check_folder` is called before anything is timed: it reads each file that would be used to its last
byte and names the first one that is wrong. A test image has no label to check.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import DataError
from workloads._imaging.dataset_json import Case, Folder, read_folder
from workloads._imaging.volume import is_same_place, read_channels, read_grid, shape_text


def check_folder(root: Path, *, classes: int, channels: int, cases: int) -> None:
    """Raise `DataError` for the first file that training or inference could not use."""
    folder = read_folder(root)
    _check_parameters(folder, root=root, classes=classes, channels=channels)
    for case in folder.training + folder.test:
        for path in case.paths:
            if not os.path.isfile(path):
                raise DataError(
                    f"{path} is missing, a file of the cases of {root / 'dataset.json'}"
                )
    training, validation = folder.split(cases)
    for case in dict.fromkeys(training + validation):
        check_case(case, classes=classes, channels=channels)


def _check_parameters(folder: Folder, *, root: Path, classes: int, channels: int) -> None:
    num_classes, num_channels = len(folder.classes), len(folder.channels)
    if num_classes < 2:
        raise DataError(f"{root / 'dataset.json'} names no class beside the background")
    flags = f" --set classes={num_classes}" if num_classes != classes else ""
    flags += f" --set channels={num_channels}" if num_channels != channels else ""
    if flags:
        raise DataError(
            f"{root / 'dataset.json'} names the classes {', '.join(folder.classes)} and the"
            f" modalities {', '.join(folder.channels)}, but the workload has classes={classes}"
            f" and channels={channels}; add{flags}"
        )


def check_case(case: Case, *, classes: int, channels: int) -> None:
    """Raise `DataError` if the files are damaged or do not belong together."""
    image, image_affine = read_channels(case.images)
    none = np.zeros_like(image[:1]), image_affine
    label, label_affine = read_channels((case.label,)) if case.label else none
    if len(image) != channels:
        raise DataError(
            f"{case.images[0]} has shape {_text(image)}, not a volume of {channels} channel(s)"
        )
    if label.shape != (1, *image.shape[1:]):
        raise DataError(f"{case.label} has shape {_text(label)} but its image {_text(image)}")
    if not is_same_place(image_affine, label_affine):
        raise DataError(f"{case.label} lies elsewhere than its image (the affines differ)")
    for number, channel in enumerate(image):
        of_several = f", channel {number}," if len(case.images) < len(image) else ""
        where = f"{case.images[min(number, len(case.images) - 1)]}{of_several}"
        if not np.isfinite(channel).all():
            raise DataError(
                f"{where} holds values that are not finite in fp32 (NaN, infinity or more)"
            )
        if channel.min() == channel.max():
            raise DataError(f"{where} is empty: every voxel is {channel.flat[0]:g}")
    if not np.isfinite(label).all() or (label != np.round(label)).any():
        raise DataError(f"{case.label} holds values that are not whole numbers")
    worst = label.min() if label.min() < 0 else label.max()
    if not 0 <= worst < classes:
        raise DataError(
            f"{case.label} holds label {worst:g}; dataset.json allows 0 to {classes - 1}"
        )


def _text(image: NDArray[Any]) -> str:
    """Shape of CXYZ voxels as they lie in the file."""
    channels, *space = image.shape
    return shape_text((*space, channels) if channels > 1 else tuple(space))


def median_spacing_mm(cases: tuple[Case, ...]) -> tuple[float, ...]:
    """Return the median voxel size along the right, anterior and superior axes; reads headers."""
    sizes_mm = [_grid(case)[1] for case in cases]
    return tuple(map(float, np.median(sizes_mm, axis=0)))


def largest_volume(
    root: Path, *, cases: int, spacing_mm: tuple[float, ...] | None
) -> tuple[tuple[int, ...], int]:
    """Return about the resampled shape of the largest held-out volume, and how many hold them all.

    It reads headers.
    """
    training, validation = read_folder(root).split(cases)
    target_mm = spacing_mm or median_spacing_mm(training)
    shapes = [_grid(case).prod(axis=0) / target_mm for case in validation]
    voxels = [float(np.prod(shape)) for shape in shapes]
    largest = tuple(max(round(float(size)), 1) for size in max(shapes, key=np.prod))
    return largest, math.ceil(sum(voxels) / max(voxels) - 1e-9)  # of equal ones their number


def _grid(case: Case) -> NDArray[np.float64]:
    """Voxels and their sizes in mm, along the right, anterior and superior axes."""
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import io_orientation

    shape, affine = read_grid(case.images[0])
    grid = np.empty((2, 3))
    # Row of the patient axis (0 right, 1 anterior, 2 superior) of each array axis.
    grid[:, io_orientation(affine)[:, 0].astype(int)] = shape, voxel_sizes(affine)
    return grid
