"""3-D segmentation of CT or MRI as nnU-Net does it: DynUNet, DiceCE, SGD; sliding-window inference.

Without --data: generated CT-like phantoms. With --data: a Medical Segmentation Decathlon folder.
Here is what is run; data, inference and formulas are in `_segmentation`. Differences from nnU-Net
are written in `_imaging_net` (net, loss, inference) and `_imaging_data` (cases, sampling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.core.errors import UsageError
from workloads._imaging_cost import UNet
from workloads._segmentation import Segmentation


@dataclass(frozen=True, kw_only=True)
class Workload(Segmentation):
    """The defaults are nnU-Net's 3d_fullres."""

    summary = "3-D medical image segmentation as nnU-Net does it (MONAI DynUNet)"
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
        "large": {"volume": (256, 256, 192)},
    }

    max_grad_norm = 12.0  # nnU-Net's
    libraries = ("workloads._imaging_net", "workloads._imaging_data")

    batch: int = 2
    filters: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    deep_supervision: bool = True
    schedule_steps: int = 250_000
    """Steps until the learning rate is 0; nnU-Net: 1000 epochs of 250."""

    @property
    def unet(self) -> UNet:
        """What fixes the net's cost; heads as nnU-Net: none at the two lowest resolutions."""
        heads = max(len(self.filters) - 3, 1) if self.deep_supervision else 0
        return UNet(
            channels=self.channels,
            classes=self.classes,
            filters=self.filters,
            heads=heads,
            patch=self.patch,
        )

    def build_net(self) -> Any:
        """Return a DynUNet with instance norm and leaky ReLU."""
        from workloads._imaging_net import build

        return build(self.unet)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return DiceCE, averaged over the heads."""
        from workloads._imaging_net import loss

        return loss(net(batch["image"]), batch["label"])

    def check_stages(self, num_stages: int) -> None:
        """Refuse: every stage of a U-Net feeds one on the way up, not only the next."""
        raise UsageError(
            "a U-Net is not cut into pipeline stages: its skips would send full-size activations "
            "between far stages; use --parallel ddp or fsdp"
        )

    def optimizer(self, net: Any) -> Any:
        """Return nnU-Net's SGD."""
        from torch.optim import SGD

        parameters = net.parameters()
        return SGD(parameters, lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)

    def schedule(self, optimizer: Any) -> Any:
        """Return nnU-Net's polynomial decay."""
        from torch.optim.lr_scheduler import PolynomialLR

        return PolynomialLR(optimizer, total_iters=self.schedule_steps, power=0.9)
