"""Patches to train on and volumes to infer, from phantoms or a Decathlon folder, alike.

Preprocessing that is the same each time is done once per case. Images and labels are turned to RAS
and resampled to the target spacing by MONAI's dictionary transforms, and each channel is normalised
by its name, as nnU-Net does: CT alone is clipped to a Hounsfield window. Places of foreground are
stored too, so that drawing a balanced patch costs no search. Generated phantoms go
through the same normalisation in memory. Cache entries are folders of .npy, named by a hash of the
files and all parameters, written beside and renamed: parallel runs see whole entries or none.

Sampling follows nnU-Net: a third of the patches is centred on a foreground voxel of a random class,
the others anywhere in the background; an epoch is 250 batches. Augmentation is mirroring along the
three axes; nnU-Net's rotations, scalings and intensity changes are left out. A sample depends on
(seed, index) alone, also in worker processes. Samples are dicts of `image` (CXYZ, float32) and
`label` (1XYZ, uint8).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    NormalizeIntensity,
    Orientationd,
    RandCropByPosNegLabeld,
    RandFlipd,
    ScaleIntensity,
    ScaleIntensityRange,
    Spacingd,
    SpatialPad,
)

from bench.core.errors import UsageError
from bench.core.paths import cache_folder
from workloads._imaging.dataset_json import Case, read_folder
from workloads._imaging.decathlon import median_spacing_mm
from workloads._imaging.imaging_cost import UNet
from workloads._imaging.phantom import phantom
from workloads._imaging.volume import read_channels

KEYS = ("image", "label")
PAD_VALUE = -1.0  # air, after windowing to [-1, 1]; fills a volume smaller than the patch
CACHE_FORMAT = 2
MAX_PLACES = 20_000
"""Foreground (and background) voxels stored per case; nnU-Net stores 10,000 per class."""
BATCHES_PER_EPOCH = 250
"""nnU-Net's; https://github.com/MIC-DKFZ/nnUNet nnUNetTrainer.num_iterations_per_epoch."""
HELD_OUT = 1_000_000  # index of the first phantom that is never trained on

Prepared = Path | dict[str, torch.Tensor]
"""A cache entry, or the arrays themselves."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Everything that decides what a prepared case holds; its repr is part of the cache key."""

    channel_names: tuple[str, ...]
    """As in dataset.json; each decides how its channel is normalised."""
    window_hu: tuple[int, ...]
    pad_to: tuple[int, ...] | None
    """The patch, for training; None leaves small volumes as they are."""
    spacing_mm: tuple[float, ...] | None
    """To which files are resampled; None: the median of the training cases."""

    def prepare(self, *, image: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        """Normalise and pad a CXYZ image with its 1XYZ label; add places to sample from."""
        named = zip(image[:, None], self.channel_names, strict=True)
        image = torch.cat([self._normalised(channel, name=name) for channel, name in named])
        if self.pad_to is not None:
            image = SpatialPad(self.pad_to, value=PAD_VALUE)(image)
            label = SpatialPad(self.pad_to, value=0)(label)
        image, label = (part.as_subclass(torch.Tensor).contiguous() for part in (image, label))
        label = label.to(torch.uint8)
        return {"image": image.float(), "label": label, **places(label)}

    def _normalised(self, channel: torch.Tensor, *, name: str) -> Any:
        """Normalise one channel by its name, with the names of nnU-Net v2.

        https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/explanation_normalization.md
        """
        known: dict[str, Any] = {
            "ct": ScaleIntensityRange(*self.window_hu, b_min=-1, b_max=1, clip=True),
            "nonorm": lambda values: values,
            "rescale_to_0_1": ScaleIntensity(0, 1),
            "rgb_to_0_1": lambda values: values / 255,
        }
        return known.get(name.casefold(), NormalizeIntensity())(channel)

    def load(self, case: Case) -> Any:
        """Read image and label in RAS at the target spacing."""
        turn = Orientationd(KEYS, axcodes="RAS", labels=None)
        resample = Spacingd(KEYS, pixdim=self.spacing_mm, mode=("bilinear", "nearest"))
        image, affine = read_channels(case.images)
        # Both lie at the same place (checked before); resampling must not see rounding.
        label = read_channels((case.label,))[0] if case.label else np.zeros_like(image[:1])
        sample = {
            key: MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(affine))
            for key, array in zip(KEYS, (image, label), strict=True)
        }
        return resample(turn(sample))

    def cached(self, case: Case) -> Path:
        """Return the folder of the prepared case, made first where there is none."""
        folder = cache_folder() / "imaging" / self._key(case)
        if folder.is_dir():
            return folder
        arrays = self.prepare(**self.load(case))
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".part-", dir=folder.parent) as beside:
                for name, tensor in arrays.items():
                    np.save(Path(beside, f"{name}.npy"), tensor.numpy())
                Path(beside).rename(folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was faster; its entry is the same
                raise UsageError(
                    f"prepared volumes cannot be kept in {folder.parent}: {error};"
                    " set XDG_CACHE_HOME to a folder with room"
                ) from error
        return folder

    def _key(self, case: Case) -> str:
        files = [(path.resolve(), path.stat()) for path in case.paths]
        facts = [(str(path), one.st_ino, one.st_size, one.st_mtime_ns) for path, one in files]
        return hashlib.sha256(repr((CACHE_FORMAT, self, facts)).encode()).hexdigest()[:32]


def places(label: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return flat indices of foreground and background voxels, a bounded number of each.

    Every foreground class has the same number of entries, so that a uniform draw is a draw of a
    class and then of a voxel, as in nnU-Net. A case without one of the two offers the other.
    """
    flat = label.numpy().ravel()
    rng = np.random.default_rng(0)
    classes = [value for value in np.unique(flat) if value > 0]
    each = [
        rng.choice(np.flatnonzero(flat == value), MAX_PLACES // len(classes)) for value in classes
    ]
    background = np.flatnonzero(flat == 0)
    outside = rng.choice(background, MAX_PLACES) if background.size else np.concatenate(each)
    inside = np.concatenate(each) if each else outside
    return {"foreground": torch.from_numpy(inside), "background": torch.from_numpy(outside)}


# Samples ---------------------------------------------------------------------------------------


class Patches(Sequence[dict[str, torch.Tensor]]):
    """Random, mirrored, foreground-balanced patches of prepared cases."""

    def __init__(self, cases: list[Prepared], *, unet: UNet, seed: int) -> None:
        self._cases, self._seed = cases, seed
        self._length = BATCHES_PER_EPOCH * unet.batch
        crop = RandCropByPosNegLabeld(
            KEYS,
            label_key="label",
            spatial_size=unet.patch,
            pos=1,
            neg=2,
            fg_indices_key="foreground",
            bg_indices_key="background",
        )
        flips = [RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)]
        self._transform = Compose([crop, *flips])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        case_draw, transform_seed = np.random.SeedSequence([self._seed, index]).generate_state(2)
        case = self._cases[int(case_draw) % len(self._cases)]
        self._transform.set_random_state(seed=int(transform_seed))
        (sample,) = self._transform(_opened(case))
        return {key: sample[key].as_tensor().contiguous() for key in KEYS}


def samples(
    made: Preparation, *, unet: UNet, data: Path | None, seed: int
) -> Sequence[dict[str, torch.Tensor]]:
    """Return patches of the cases to train on where these are padded, else volumes of others."""
    is_training = made.pad_to is not None
    cases: list[Prepared] = []
    if data is None:
        first = 0 if is_training else HELD_OUT
        count = unet.cases if is_training else unet.held_out
        shape, classes, channels = unet.volume, unet.classes, unet.channels
        for index in range(first, first + count):
            # Every channel is another scan of the same patient.
            image, label = phantom(
                shape=shape, classes=classes, seed=seed, index=index, channels=channels
            )
            sample = {"image": torch.from_numpy(image), "label": torch.from_numpy(label[None])}
            cases.append(made.prepare(**sample))
    else:
        folder = read_folder(data)
        training, validation = folder.split(unet.cases)
        spacing_mm = made.spacing_mm or median_spacing_mm(training)
        made = replace(made, channel_names=folder.channels, spacing_mm=spacing_mm)
        cases += [made.cached(case) for case in (training if is_training else validation)]
    if is_training:
        return Patches(cases, unet=unet, seed=seed)
    return [{key: opened[key] for key in KEYS} for opened in map(_opened, cases)]


def _opened(case: Prepared) -> dict[str, torch.Tensor]:
    """Map the arrays of a cache entry; pages are read when touched and shared by workers."""
    if not isinstance(case, Path):
        return case
    # Copy-on-write, because torch warns about read-only memory; nothing writes to it.
    return {
        path.stem: torch.from_numpy(np.load(path, mmap_mode="c")) for path in case.glob("*.npy")
    }
