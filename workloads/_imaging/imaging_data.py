"""Patches to train on and volumes to infer, from phantoms or a Decathlon folder, alike.

Sampling follows nnU-Net: a third of the patches is centred on a foreground voxel of a random class,
the others anywhere in the background; an epoch is 250 batches. Augmentation is mirroring along the
three axes; nnU-Net's rotations, scalings and intensity changes are left out. A sample depends on
(seed, index) alone, also in worker processes. Samples are dicts of `image` (CXYZ, float32) and
`label` (1XYZ, uint8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, RandCropByPosNegLabeld, RandFlipd

from workloads._imaging import decathlon
from workloads._imaging.phantom import phantom
from workloads._imaging.prepare import KEYS, Preparation, open_prepared

BATCHES_PER_EPOCH = 250
"""nnU-Net's; https://github.com/MIC-DKFZ/nnUNet nnUNetTrainer.num_iterations_per_epoch."""
HELD_OUT = 1_000_000
"""Index of the first phantom that is never trained on."""

Prepared = Path | dict[str, torch.Tensor]
"""A cache entry, or the arrays themselves."""


class Patches(Sequence[dict[str, torch.Tensor]]):
    """Random, mirrored, foreground-balanced patches of prepared cases."""

    def __init__(
        self, cases: list[Prepared], *, patch: tuple[int, ...], batch: int, seed: int
    ) -> None:
        self._cases = cases
        self._length = BATCHES_PER_EPOCH * batch
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


def generated(
    indices: Iterable[int],
    *,
    shape: tuple[int, ...],
    classes: int,
    channels: int,
    seed: int,
    window_hu: tuple[int, ...],
    pad_to: tuple[int, ...] | None,
) -> list[Prepared]:
    """Return prepared phantoms; every channel is another scan of the same patient."""
    made = Preparation(is_ct=True, window_hu=window_hu, pad_to=pad_to)
    cases: list[Prepared] = []
    for index in indices:
        image, label = phantom(
            shape=shape, classes=classes, seed=seed, index=index, channels=channels
        )
        sample = {"image": torch.from_numpy(image), "label": torch.from_numpy(label[None])}
        cases.append(made.prepare(sample))
    return cases


def read(
    data: Path,
    *,
    cases: int,
    is_training: bool,
    spacing_mm: tuple[float, ...] | None,
    window_hu: tuple[int, ...],
    pad_to: tuple[int, ...] | None,
) -> list[Prepared]:
    """Return the prepared cases of a Decathlon folder: at most `cases` to train on, or the rest."""
    folder = decathlon.read_folder(data)
    training, validation = folder.split(cases)
    spacing_mm = spacing_mm or decathlon.median_spacing_mm(training)
    read = Preparation(
        is_ct=folder.is_ct, window_hu=window_hu, pad_to=pad_to, spacing_mm=spacing_mm
    )
    return [read.cached(case) for case in (training if is_training else validation)]


def _opened(case: Prepared) -> dict[str, torch.Tensor]:
    return open_prepared(case) if isinstance(case, Path) else case
