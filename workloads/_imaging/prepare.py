"""The part of preprocessing that is the same each time: done once per case, kept on disk.

MONAI's dictionary transforms read a NIfTI pair, turn it to RAS, resample it to the target spacing
and normalise it: CT is clipped to a Hounsfield window and scaled to [-1, 1], anything else is
z-scored, as nnU-Net does. Places of foreground are stored too, so that drawing a balanced patch
costs no search. Generated phantoms go through the same normalisation in memory. Entries are folders
of .npy under $XDG_CACHE_HOME/gapbench (default ~/.cache), named by a hash of the files and all
parameters, written beside and renamed, so that parallel runs see whole entries or none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambda,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
    SpatialPadd,
)

from bench.core.errors import UsageError
from workloads._imaging.decathlon import Case

KEYS = ("image", "label")
PAD_VALUE = -1.0
"""Air, after windowing to [-1, 1]; fills a volume smaller than the patch."""
CACHE_FORMAT = 1
MAX_PLACES = 20_000
"""Foreground (and background) voxels stored per case; nnU-Net stores 10,000 per class."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Everything that decides what a prepared case holds; its repr is part of the cache key."""

    is_ct: bool
    window_hu: tuple[int, ...]
    pad_to: tuple[int, ...] | None
    """The patch, for training; None leaves small volumes as they are."""
    spacing_mm: tuple[float, ...] | None = None
    """None: as it is (generated)."""

    def prepare(self, sample: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Normalise and pad a CXYZ image with its label; add places to sample from."""
        steps: list[Any] = [self._normalisation()]
        if self.pad_to is not None:
            steps += [
                SpatialPadd("image", self.pad_to, value=PAD_VALUE),
                SpatialPadd("label", self.pad_to, value=0),
            ]
        result = Compose(steps)(sample)
        image = torch.as_tensor(result["image"]).contiguous()
        label = torch.as_tensor(result["label"]).to(torch.uint8).contiguous()
        return {"image": _plain(image.float()), "label": _plain(label), **places(_plain(label))}

    def load(self, case: Case) -> dict[str, Any]:
        """Read a NIfTI pair in RAS at the target spacing."""
        steps = Compose(
            [
                LoadImaged(KEYS, reader="NibabelReader"),
                EnsureChannelFirstd(KEYS),
                # Equal within rounding (checked before); resampling must not see a difference.
                Lambda(_share_affine),
                Orientationd(KEYS, axcodes="RAS", labels=None),
                Spacingd(KEYS, pixdim=self.spacing_mm, mode=("bilinear", "nearest")),
            ]
        )
        sample: dict[str, Any] = steps({"image": case.image, "label": case.label})
        return sample

    def _normalisation(self) -> Any:
        if not self.is_ct:
            return NormalizeIntensityd("image", channel_wise=True)
        low, high = self.window_hu
        return ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=-1, b_max=1, clip=True)

    def cached(self, case: Case) -> Path:
        """Return the folder of the prepared case, made first where there is none."""
        folder = _cache_folder() / self._key(case)
        if folder.is_dir():
            return folder
        arrays = self.prepare(self.load(case))
        try:
            _write(folder, arrays=arrays)
        except OSError as error:
            raise UsageError(
                f"prepared volumes cannot be kept in {folder.parent}: {error};"
                " set XDG_CACHE_HOME to a folder with room"
            ) from error
        return folder

    def _key(self, case: Case) -> str:
        parts = [f"{CACHE_FORMAT} {self!r}"]
        for path in (case.image, case.label):
            status = path.stat()
            parts.append(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def open_prepared(folder: Path) -> dict[str, torch.Tensor]:
    """Map the arrays of a cache entry; pages are read when touched and shared by workers."""
    # Copy-on-write, because torch warns about read-only memory; nothing writes to it.
    return {
        path.stem: torch.from_numpy(np.load(path, mmap_mode="c")) for path in folder.glob("*.npy")
    }


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


def _share_affine(sample: dict[str, Any]) -> dict[str, Any]:
    sample["label"].affine = sample["image"].affine
    return sample


def _plain(tensor: Any) -> torch.Tensor:
    plain: torch.Tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return plain


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "gapbench" / "imaging"


def _write(folder: Path, *, arrays: dict[str, torch.Tensor]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        for name, tensor in arrays.items():
            np.save(beside / f"{name}.npy", tensor.numpy())
        try:
            beside.rename(folder)
        except OSError:
            # Another process was faster; its entry is the same.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
