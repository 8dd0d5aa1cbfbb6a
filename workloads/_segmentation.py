"""What every patch-trained segmentation net shares: data, whole-volume inference, counts, checks.

A net that is trained on patches and slid over whole volumes; `workloads/imaging.py` says which.
Torch comes in inside the methods.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.nouns import Dtype
from bench.workload import Phase, Workload
from workloads._imaging_cost import UNet, num_windows
from workloads._imaging_memory import infer_bytes, train_bytes

TRAIN = Phase(name="train", item="patch", element="voxel", is_training=True)
INFER = Phase(name="infer", item="volume", element="voxel")


@dataclass(frozen=True, kw_only=True)
class Segmentation(Workload):
    """Train on random patches, infer whole volumes."""

    phases = (TRAIN, INFER)
    accepts_data = "a Medical Segmentation Decathlon folder (dataset.json, imagesTr, labelsTr)"

    patch: tuple[int, ...] = (128, 128, 128)
    channels: int = 1
    """Modalities of an image."""
    classes: int = 3
    """Background, organs, lesion."""
    volume: tuple[int, ...] = (256, 256, 192)
    """Voxels of a generated volume; those of a --data folder have their own shapes."""
    sw_batch_size: int = 2
    """Windows that inference runs at once."""
    cases: int = 8
    """Training cases used at most: each is prepared once, before the measurement."""
    spacing_mm: str = "median"
    """To what --data is resampled: 'median' of the training cases, or such as '1.5x0.8x0.8'."""
    window_hu: tuple[int, ...] = (-160, 240)
    """CT values outside are clipped (soft-tissue window)."""

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be built."""
        for name, value in vars(self).items():
            if type(value) is int and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 2 <= self.classes <= 255:
            raise ValueError(f"classes must be 2 to 255 (background included), not {self.classes}")
        if len(self.volume) != 3 or min(self.volume) < 1:
            raise ValueError(f"volume needs three positive sizes, not {self.volume}")
        if len(self.window_hu) != 2 or self.window_hu[0] >= self.window_hu[1]:
            raise ValueError(f"window_hu needs LOWxHIGH such as -160x240, not {self.window_hu}")
        self.target_spacing_mm()
        self.unet.check()

    @property
    @abstractmethod
    def unet(self) -> UNet:
        """What fixes the net's cost."""

    def target_spacing_mm(self) -> tuple[float, ...] | None:
        """Return the spacing that --data is resampled to; None is the training cases' median."""
        if self.spacing_mm == "median":
            return None
        try:
            spacing = tuple(float(part) for part in self.spacing_mm.split("x"))
        except ValueError:
            spacing = ()
        if len(spacing) != 3 or not all(0 < part < math.inf for part in spacing):
            raise ValueError(f"spacing_mm is 'median' or such as 1.5x0.8x0.8: {self.spacing_mm!r}")
        return spacing

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return random patches, or whole volumes of cases that are not trained on."""
        from workloads import _imaging_data

        if phase.is_training:
            return _imaging_data.patches(self, data=data, seed=seed)
        return _imaging_data.volumes(self, data=data, seed=seed)

    def infer(self, net: Any, batch: Any) -> Any:
        """Return the logits of a whole volume."""
        from workloads._imaging_net import segment

        return segment(net, batch["image"], patch=self.patch, sw_batch_size=self.sw_batch_size)

    def batch_size(self, phase: Phase) -> int:
        """Return `batch` patches, or one volume, since volumes differ in shape."""
        return self.batch if phase.is_training else 1

    def items(self, phase: Phase, batch: Any) -> int:
        """Return patches or volumes."""
        return self.batch_size(phase) if batch is None else int(batch["image"].shape[0])

    def elements(self, phase: Phase, batch: Any) -> int:
        """Return voxels, each counted once however many windows or channels it is in."""
        if batch is None:
            generated = self.patch if phase.is_training else self.volume
            return self.batch_size(phase) * math.prod(generated)
        shape = batch["image"].shape
        return int(shape[0]) * math.prod(int(size) for size in shape[2:])

    def num_parameters(self) -> int:
        """Return the sum over layers."""
        return self.unet.num_parameters()

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """Return a patch's forward and backward, or the forward of a volume's windows."""
        if phase.is_training:
            return self.unet.train_flops()
        shape = self.volume if batch is None else tuple(map(int, batch["image"].shape[2:]))
        return num_windows(shape, patch=self.patch) * self.unet.forward_flops()

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float:
        """Return the least traffic: activations of each pass once, weights once a batch of patches.

        Training: the backward pass moves twice what the forward does (stored inputs and gradients
        in, gradients out), and SGD with momentum reads weight, gradient and momentum and writes
        weight and momentum, in fp32, beside one read for each pass and one gradient written.
        """
        activations = self.unet.activation_traffic() * dtype_bytes
        weights = self.unet.num_parameters()
        if phase.is_training:
            return 3 * activations + 8 * 4 * weights / self.batch
        windows = num_windows(self.volume, patch=self.patch)
        passes = math.ceil(windows / self.sw_batch_size)
        return windows * activations + passes * weights * dtype_bytes

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return the estimate derived in `_imaging_cost`."""
        if phase.is_training:
            return train_bytes(self.unet, batch=self.batch, dtype=dtype)
        return infer_bytes(
            self.unet, volume=self.volume, sw_batch_size=self.sw_batch_size, dtype=dtype
        )

    def check_data(self, data: Path) -> None:
        """Read every file that would be used."""
        from workloads._decathlon import check_folder

        check_folder(data, classes=self.classes, channels=self.channels, cases=self.cases)

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse a loss or logits that are not finite, and logits of another number of classes."""
        if not bool(output.isfinite().all()):
            what = "loss" if phase.is_training else "logits"
            raise ValueError(f"{what} of {self.unet.num_parameters()} parameters is not finite")
        if not phase.is_training and (output.dim() != 5 or output.shape[1] != self.classes):
            raise ValueError(
                f"logits have shape {tuple(output.shape)}, not 1 x {self.classes} x volume"
            )

    def quality(self, net: Any, samples: Sequence[Any]) -> dict[str, float]:
        """Return the mean foreground Dice over volumes with labels."""
        from workloads._imaging_net import mean_dice

        score = mean_dice(
            net,
            samples,
            classes=self.classes,
            patch=self.patch,
            sw_batch_size=self.sw_batch_size,
        )
        return {"mean_dice": score}
