"""3-D segmentation of CT or MRI as nnU-Net does it: DynUNet, DiceCE, SGD; sliding-window inference.

Without --data: generated CT-like phantoms. With --data: a folder of the Medical Segmentation
Decathlon or of nnU-Net v2.
Trained on random patches, inferred on whole volumes. Differences from nnU-Net are written in
`_imaging.imaging_net` (net, loss, inference) and `_imaging.imaging_data` (cases, sampling).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import bench.workload
from bench.core.errors import UsageError
from bench.workload import Phase, UsedData
from workloads._imaging.imaging_cost import CASES_PER_HELD_OUT, UNet

TRAIN = Phase(name="train", item="patch", element="voxel", is_training=True)
INFER = Phase(name="infer", item="volume", element="voxel")


def _net() -> Any:
    """Return the module that imports torch and MONAI."""
    from workloads._imaging import imaging_net

    return imaging_net


@dataclass(frozen=True, kw_only=True)
class Workload(UNet, bench.workload.Workload):
    """A U-Net of any shape; the defaults are nnU-Net's 3d_fullres."""

    summary = "3-D medical image segmentation as nnU-Net does it (MONAI DynUNet)"
    domain = "medical"
    sizes = {
        "tiny": {
            "filters": (8, 16, 32),
            "patch": (24, 24, 16),
            "volume": (36, 36, 24),
            "deep_supervision": False,
            "cases": 16,
            "schedule_steps": 400,
        },
        "small": {
            "filters": (16, 32, 64, 128),
            "patch": (48, 48, 48),
            "volume": (96, 96, 72),
            "deep_supervision": False,
        },
        "base": {
            "filters": (32, 64, 128, 256, 320),
            "patch": (96, 96, 96),
            "volume": (192, 192, 144),
        },
        "large": {},
    }

    phases = (TRAIN, INFER)
    accepts_data = "a Decathlon or nnU-Net v2 folder (dataset.json, imagesTr, labelsTr)"
    max_grad_norm = 12.0  # nnU-Net's
    libraries = (
        "workloads._imaging.monai_alone",
        "workloads._imaging.imaging_net",
        "workloads._imaging.imaging_data",
    )

    spacing_mm: str = "median"
    """To what --data is resampled: 'median' of the training cases, or such as '1.5x0.8x0.8'."""
    window_hu: tuple[int, ...] = (-160, 240)
    """CT values outside are clipped (soft-tissue window)."""
    schedule_steps: int = 250_000
    """Steps until the learning rate is 0; nnU-Net: 1000 epochs of 250."""

    def __post_init__(self) -> None:
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
        self.check_shape()

    def build_net(self) -> Any:
        """Return a DynUNet with instance norm and leaky ReLU."""
        return _net().build(self)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return DiceCE, averaged over the heads."""
        return _net().loss(net(batch["image"]), batch["label"])

    def check_stages(self, num_stages: int) -> None:
        """Refuse: every stage of a U-Net feeds one on the way up, not only the next."""
        raise UsageError(
            "a U-Net is not cut into pipeline stages: its skips would send full-size activations "
            "between far stages; use --parallel ddp or fsdp"
        )

    def optimizer(self, net: Any) -> Any:
        """Return nnU-Net's SGD."""
        from torch.optim import SGD

        return SGD(net.parameters(), lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)

    def schedule(self, optimizer: Any) -> Any:
        """Return nnU-Net's polynomial decay."""
        from torch.optim.lr_scheduler import PolynomialLR

        return PolynomialLR(optimizer, total_iters=self.schedule_steps, power=0.9)

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
        from workloads._imaging import imaging_data

        made = imaging_data.Preparation(
            channel_names=("CT",) * self.channels,
            window_hu=self.window_hu,
            pad_to=self.patch if phase.is_training else None,
            spacing_mm=self.target_spacing_mm(),
        )
        return imaging_data.samples(made, unet=self, data=data, seed=seed)

    def infer(self, net: Any, batch: Any) -> Any:
        """Return the logits of a whole volume."""
        return _net().segment(self, net, batch["image"])

    def batch_size(self, phase: Phase) -> int:
        """Return `batch` patches, or one volume, since volumes differ in shape."""
        return self.batch if phase.is_training else 1

    def items(self, phase: Phase, batch: Any) -> int:
        """Return patches or volumes."""
        return self.batch_size(phase) if batch is None else len(batch["image"])

    def elements(self, phase: Phase, batch: Any) -> int:
        """Return voxels, each counted once however many windows or channels it is in."""
        generated = self.patch if phase.is_training else self.volume
        shape = generated if batch is None else batch["image"].shape[2:]
        return self.items(phase, batch) * math.prod(shape)

    def sized_as(self, phase: Phase, batch: Any) -> Self:
        """Return this net for a generated volume of the shape of the batch's."""
        volume = self.volume if phase.is_training else tuple(batch["image"].shape[2:])
        return replace(self, volume=volume)

    def sized_for(self, phase: Phase, data: Path) -> Self:
        """Return this net for volumes as the largest that is held out, enough to hold them all."""
        from workloads._imaging.decathlon import largest_volume

        if phase.is_training:
            return self
        spacing_mm = self.target_spacing_mm()
        volume, number = largest_volume(data, cases=self.cases, spacing_mm=spacing_mm)
        return replace(self, volume=volume, cases=CASES_PER_HELD_OUT * number)

    def resident_batches(self, phase: Phase) -> int:
        """Return every volume that `cases` allows: they differ; patches are alike."""
        usual = super().resident_batches(phase)
        return usual if phase.is_training else max(self.cases, usual)

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Name the first cases that are used, and say how many there are."""
        from workloads._imaging.dataset_json import read_folder

        folder, index = read_folder(data), int(not phase.is_training)
        used, every = folder.split(self.cases)[index], folder.split()[index]
        names = [re.sub(r"(_0000)?\.nii(\.gz)?$", "", one.images[0].name) for one in used[:3]]
        named = ", ".join(names) + ", ..." * (len(used) > 3)
        rest = f"; --cases {len(every)} takes all" if len(used) < len(every) else ""
        what = "to train on" if phase.is_training else "held out"
        return UsedData(words=f"cases {what}, {len(used)} of {len(every)} used: {named}{rest}")

    def check_data(self, data: Path) -> None:
        """Read every file that would be used."""
        from workloads._imaging.decathlon import check_folder

        check_folder(data, classes=self.classes, channels=self.channels, cases=self.cases)

    def mask(self, phase: Phase, output: Any) -> Any:
        """Return the likeliest class of each voxel, BXYZ; a loss has none."""
        return None if phase.is_training else output.argmax(dim=1).byte()

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse a loss or logits that are not finite, and logits of another number of classes."""
        if not bool(output.isfinite().all()):
            what = "loss" if phase.is_training else "logits"
            raise ValueError(f"{what} of {self.num_parameters()} parameters is not finite")
        if not phase.is_training and (output.dim() != 5 or output.shape[1] != self.classes):
            shape = tuple(output.shape)
            raise ValueError(f"logits have shape {shape}, not 1 x {self.classes} x volume")
