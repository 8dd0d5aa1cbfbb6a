"""Objects around a car from lidar sweeps: PointPillars, trained and applied.

Without --data: generated roads with boxes on them. With it: a KITTI folder. Pillars are made and
anchors matched in the data set, as practice does. Scatter onto the canvas and transposed
convolutions are what stacks of accelerators lack first. Mirrors MLPerf Inference's PointPainting
(v5.0 to v6.0); mmdetection3d trains 107 KITTI sweeps a second on eight V100 (docs/benchmarks.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.workload import Phase, UsedData
from workloads._driving.driving_cost import PillarShape

TRAIN = Phase(name="train", item="sweep", is_training=True)
INFER = Phase(name="infer", item="sweep")


@dataclass(frozen=True, kw_only=True)
class Workload(PillarShape, bench.workload.Workload):
    """A PointPillars of any grid; the defaults are KITTI's."""

    summary = "boxes of cars and people in lidar sweeps (PointPillars)"
    domain = "driving"
    phases = (TRAIN, INFER)
    accepts_data = "a KITTI object folder (velodyne, label_2, calib)"
    libraries = ("workloads._driving.driving_net", "workloads._driving.driving_data")
    max_grad_norm = 10.0
    sizes = {
        "tiny": {"batch": 8, "grid": (32, 32), "pillar_m": 0.4, "pillars": 256, "points": 8,
                 "width": 16, "classes": 1},
        "small": {"grid": (128, 128), "pillar_m": 0.32, "pillars": 2000},
        "base": {},
        "large": {"grid": (512, 512), "pillar_m": 0.2, "pillars": 40_000, "points": 20,
                  "classes": 10},
    }  # fmt: skip

    def __post_init__(self) -> None:
        self.check_shape()

    def build_net(self) -> Any:
        """Return a PointPillars with random weights."""
        from workloads._driving.driving_net import PointPillars

        return PointPillars(self)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return sweeps with matched anchors, or other sweeps with their boxes."""
        from workloads._driving.driving_data import sweeps

        return sweeps(self, data=data, seed=seed, is_training=phase.is_training)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return focal, box and direction loss of each sweep, the mean."""
        from workloads._driving.driving_net import loss

        return loss(net(batch["points"], batch["cells"]), batch)

    def optimizer(self, net: Any) -> Any:
        """Return OpenPCDet's AdamW for KITTI (its schedule is left out)."""
        from torch.optim import AdamW

        return AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)

    def infer(self, net: Any, batch: Any) -> Any:
        """Return the 100 best boxes of each sweep, and the maps that they are read from."""
        from workloads._driving.driving_net import detect

        return detect(net(batch["points"], batch["cells"]), self)

    def comparable(self, phase: Phase, output: Any) -> Any:
        """Return the maps of inference: rounding may change the order of boxes."""
        return output if phase.is_training else output["maps"]

    def check_data(self, data: Path) -> None:
        """Read all labels and calibrations and some sweeps, and look at every sweep's size."""
        from workloads._driving.kitti_files import check_folder

        check_folder(data)

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Say how many boxes are used, and count those that are left out."""
        from workloads._driving.kitti_files import boxes_used

        return boxes_used(data, shape=self, is_training=phase.is_training)

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse a loss or boxes that are not finite, and scores that are none."""
        if phase.is_training:
            if not bool(output.isfinite().all()):
                raise ValueError(f"the loss of {self.num_parameters()} parameters is not finite")
            return
        scores, boxes = output["scores"], output["boxes"]
        if not bool(((scores >= 0) & (scores <= 1)).all()) or not bool(boxes.isfinite().all()):
            raise ValueError("boxes are not finite, or their scores not from 0 to 1")
