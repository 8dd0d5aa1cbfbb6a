"""Surveillance: people and things found in cameras' frames by RT-DETRv2 (transformers).

`surveillance-train` is one AdamW step with the matching of boxes on the host (extra `detection`);
`surveillance-infer` looks at one frame of each of `cameras`. `bench gap --load
surveillance-infer:25/s --latency 500ms` gives the share of a device that one camera needs, and the
frames a second that it carries: over 25, its cameras. Without --data: coloured rectangles on noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.workload import Phase, UsedData
from workloads._surveillance.detection_cost import Detector

TRAIN = Phase(name="train", item="frame", is_training=True)
INFER = Phase(name="infer", item="frame")
R18: dict[str, Any] = {"block": "basic", "depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512),
                       "frozen_norms": False, "expansion": 0.5, "decoder_layers": 3}  # fmt: skip
"""As published: PekingU/rtdetr_v2_r18vd."""


def _net() -> Any:
    """Return the module that imports torch and transformers."""
    from workloads._surveillance import detection_net

    return detection_net


@dataclass(frozen=True, kw_only=True)
class Workload(Detector, bench.workload.Workload):
    """A detector of any shape; the defaults are RT-DETRv2-R50."""

    summary = "people and things found in frames of many cameras (RT-DETRv2)"
    phases = (TRAIN, INFER)
    domain = "vision"
    accepts_data = "a folder of COCO or of WIDER FACE"
    libraries = ("transformers.models.rt_detr_v2.modeling_rt_detr_v2",)
    extras = {"scipy": "detection"}
    max_grad_norm = 0.1  # RT-DETR's
    sizes = {
        "tiny": dict(R18, depths=(1, 1, 1, 1), widths=(16, 32, 64, 128), stem=16, hidden=64,
                     feedforward=128, expansion=1.0, decoder_layers=2, queries=20, denoising=0,
                     pixels=128, classes=3, batch=8, cameras=4, learning_rate=2e-3),
        "small": dict(R18, pixels=320, classes=20), "base": dict(R18), "large": {}}  # fmt: skip

    def __post_init__(self) -> None:
        self.check_shape()

    def build_net(self) -> Any:
        """Return the detector with random weights."""
        return _net().build(self)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the loss of boxes and classes after matching."""
        return _net().loss(net, batch)

    def optimizer(self, net: Any) -> Any:
        """Return RT-DETR's AdamW, with one rate: here the ResNet is not trained before."""
        from torch.optim import AdamW

        return AdamW(net.parameters(), lr=self.learning_rate, weight_decay=1e-4)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return frames with their boxes."""
        from workloads._surveillance.detection_data import samples

        return samples(self, data=data, is_held_out=not phase.is_training, seed=seed)

    def collate(self, phase: Phase) -> Any:
        """Return what stacks frames and lists boxes."""
        from workloads._surveillance.detection_data import together

        return together

    def infer(self, net: Any, batch: Any) -> Any:
        """Return boxes and logits; nothing is suppressed, by design."""
        return _net().detect(net, batch)

    def check_data(self, data: Path) -> None:
        """Refuse a folder that is neither, more classes than there are, and broken pictures."""
        from workloads._surveillance.annotation_files import check_folder

        check_folder(data, classes=self.classes)

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Say how many frames and boxes are used, and count what is left out."""
        from workloads._surveillance.annotation_files import read_frames

        return read_frames(data, is_held_out=not phase.is_training).used()

    def comparable(self, phase: Phase, output: Any) -> Any:
        """Return all of it, whatever the order of queries."""
        return _net().in_any_order(output)

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse what is not finite, boxes outside the frame, another number of classes."""
        _net().check_output(output, classes=self.classes)
