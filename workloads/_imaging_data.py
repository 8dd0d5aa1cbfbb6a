"""Patches to train on and volumes to infer, from phantoms or a Decathlon folder, alike.

Sampling follows nnU-Net: a third of the patches is centred on a foreground voxel of a random class,
the others anywhere in the background; an epoch is 250 batches. Augmentation is mirroring along the
three axes; nnU-Net's rotations, scalings and intensity changes are left out. A sample depends on
(seed, index) alone, also in worker processes. Samples are dicts of `image` (CXYZ, float32) and
`label` (1XYZ, uint8).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd

from workloads import _decathlon
from workloads._imaging_prepare import KEYS, Preparation, open_prepared
from workloads._phantom import phantom

if TYPE_CHECKING:
    from workloads._segmentation import Segmentation

BATCHES_PER_EPOCH = 250
"""nnU-Net's; https://github.com/MIC-DKFZ/nnUNet nnUNetTrainer.num_iterations_per_epoch."""
HELD_OUT = 1_000_000
"""Index of the first phantom that is never trained on."""

Prepared = Path | dict[str, torch.Tensor]
"""A cache entry, or the arrays themselves."""


class Patches(Sequence[dict[str, torch.Tensor]]):
    """Random, mirrored, foreground-balanced patches of prepared cases."""

    def __init__(
        self, cases: list[Prepared], *, patch: tuple[int, ...], length: int, seed: int
    ) -> None:
        self._cases = cases
        self._length = length
        self._seed = seed
        self._transform = Compose(
            [
                RandCropByPosNegLabeld(
                    KEYS,
                    label_key="label",
                    spatial_size=patch,
                    pos=1,
                    neg=2,
                    num_samples=1,
                    fg_indices_key="foreground",
                    bg_indices_key="background",
                ),
                *[RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)],
            ]
        )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        """Return sample `index`, the same in every process."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        case_draw, transform_seed = np.random.SeedSequence([self._seed, index]).generate_state(2)
        case = self._cases[int(case_draw) % len(self._cases)]
        self._transform.set_random_state(seed=int(transform_seed))
        (sample,) = self._transform(_opened(case))
        return {key: sample[key].as_tensor().contiguous() for key in KEYS}


class Volumes(Sequence[dict[str, torch.Tensor]]):
    """Whole prepared volumes."""

    def __init__(self, cases: list[Prepared]) -> None:
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: Any) -> Any:
        """Return volume `index`."""
        opened = _opened(self._cases[index])
        return {key: opened[key] for key in KEYS}


def patches(workload: Segmentation, *, data: Path | None, seed: int) -> Patches:
    """Return the training set."""
    return Patches(
        _cases(workload, data=data, seed=seed, is_training=True),
        patch=workload.patch,
        length=BATCHES_PER_EPOCH * workload.batch,
        seed=seed,
    )


def volumes(workload: Segmentation, *, data: Path | None, seed: int) -> Volumes:
    """Return the held-out volumes."""
    return Volumes(_cases(workload, data=data, seed=seed, is_training=False))


def _cases(
    workload: Segmentation, *, data: Path | None, seed: int, is_training: bool
) -> list[Prepared]:
    pad_to = workload.patch if is_training else None
    if data is None:
        made = Preparation(is_ct=True, window_hu=workload.window_hu, pad_to=pad_to)
        first = 0 if is_training else HELD_OUT
        count = workload.cases if is_training else max(workload.cases // 4, 2)
        return [
            made.prepare(_generated(workload, seed=seed, index=first + number))
            for number in range(count)
        ]
    folder = _decathlon.read_folder(data)
    training, validation = folder.split(workload.cases)
    spacing_mm = workload.target_spacing_mm() or _decathlon.median_spacing_mm(training)
    read = Preparation(
        is_ct=folder.is_ct, window_hu=workload.window_hu, pad_to=pad_to, spacing_mm=spacing_mm
    )
    return [read.cached(case) for case in (training if is_training else validation)]


def _generated(workload: Segmentation, *, seed: int, index: int) -> dict[str, torch.Tensor]:
    """Return a phantom; every channel is another scan of the same patient."""
    image, label = phantom(
        shape=workload.volume,
        classes=workload.classes,
        seed=seed,
        index=index,
        channels=workload.channels,
    )
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(label[None])}


def _opened(case: Prepared) -> dict[str, torch.Tensor]:
    return open_prepared(case) if isinstance(case, Path) else case
