"""What PointPillars amounts to, by formula: parameters, FLOPs, memory. Plain Python.

Lang et al. 2019 (https://arxiv.org/abs/1812.05784, section 2) as its KITTI configuration has it:
three blocks of 4, 6 and 6 convolutions of 3 x 3, the first of each with stride 2, three transposed
convolutions to one size, three heads of 1 x 1. The products of the pillars' linear layer and of the
convolutions are all that is counted as FLOPs, as FlopCounterMode does.

Backward keeps of each convolution its output and what norm and ReLU make of it, which is the next
one's input; of the pillars twice their points' features. Peaks of live storages, counted on a CPU
for four shapes, are 1.04 to 1.25 times below the estimate.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from bench.core.errors import UsageError
from bench.core.nouns import DTYPE_BYTES, Dtype
from bench.workload import RESIDENT_BATCHES, Phase
from workloads._costs.conv_cost import Conv

FEATURES = 9
"""Of a point: place, reflectance, offsets from its pillar's mean and from its pillar's middle."""
LAYERS = (4, 6, 6)
"""Convolutions of each block."""
BOX = 7
"""Numbers of a box: middle, length, width, height, yaw."""
DIRECTIONS = 2
CLASSES = ("Car", "Pedestrian", "Cyclist", "Truck", "Van", "Tram", "Bus", "Trailer", "Motorcycle",
           "Person_sitting")  # fmt: skip
"""By KITTI's names; the net knows the first ones."""


@dataclass(frozen=True, kw_only=True)
class PillarShape:
    """The parameters that fix the net's cost; the defaults are KITTI's of three classes."""

    batch: int = 4
    grid: tuple[int, ...] = (496, 432)
    """Pillars across the road, and ahead of the car."""
    pillar_m: float = 0.16
    pillars: int = 12_000
    """That hold points, of a sweep; more are left out."""
    points: int = 32
    """Of a pillar; more are left out."""
    width: int = 64
    """Channels of a pillar; the blocks have 1, 2 and 4 times as many."""
    classes: int = 3

    @property
    def anchors(self) -> int:
        """Anchors at one place: two directions of each class."""
        return 2 * self.classes

    @property
    def places(self) -> int:
        """Where anchors are: on half the grid's resolution."""
        return math.prod(self.grid) // 4

    @property
    def extent_m(self) -> tuple[float, float]:
        """How far ahead and how far to each side the grid goes."""
        return self.grid[1] * self.pillar_m, self.grid[0] * self.pillar_m / 2

    def check_shape(self) -> None:
        """Raise UsageError if no such net exists."""
        for name in ("batch", "pillars", "points", "width"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if len(self.grid) != 2 or any(size < 16 or size % 8 for size in self.grid):
            raise UsageError(f"grid needs two multiples of 8 from 16 on, not {self.grid}")
        if not 1 <= self.classes <= len(CLASSES):
            raise UsageError(f"classes must be from 1 to {len(CLASSES)}, not {self.classes}")
        if not 0 < self.pillar_m < math.inf:
            raise UsageError(f"pillar_m must be a length over 0, not {self.pillar_m}")

    def normed(self) -> list[Conv]:
        """Return the convolutions that a batch norm follows, in order of execution."""
        layers, before = [], self.width
        raised = []
        for stage, count in enumerate(LAYERS):
            after, positions = self.width << stage, self.places >> (2 * stage)
            for width in [before] + [after] * (count - 1):
                conv = Conv(
                    channels_in=width, channels_out=after, kernel=(3, 3), positions=positions
                )
                layers.append(conv)
            before = after
            up = replace(conv, channels_in=after, channels_out=2 * self.width, is_transposed=True)
            raised.append(replace(up, kernel=(1 << stage,) * 2))
        return layers + raised

    def heads(self) -> list[Conv]:
        """Return the convolutions that classes, boxes and directions are read from."""
        return [
            Conv(
                channels_in=6 * self.width,
                channels_out=self.anchors * each,
                kernel=(1, 1),
                positions=self.places,
                has_bias=True,
            )
            for each in (self.classes, BOX, DIRECTIONS)
        ]

    def num_parameters(self) -> int:
        """Return those of the pillars' linear layer, of convolutions, and two for each norm."""
        convs = sum(layer.num_weights for layer in self.normed() + self.heads())
        norms = 2 * (self.width + sum(layer.channels_out for layer in self.normed()))
        return FEATURES * self.width + convs + norms

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """Return the FLOPs of a sweep; its points need no gradient."""
        linear = 2 * FEATURES * self.width * self.pillars * self.points
        forward = linear + sum(layer.flops for layer in self.normed() + self.heads())
        return float(3 * forward - linear if phase.is_training else forward)

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the sweeps of the batch."""
        return self.batch if batch is None else len(batch["cells"])

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return the peak of a step: weights with their state, batches, and what is kept."""
        element_bytes = DTYPE_BYTES[dtype]
        ready = RESIDENT_BATCHES * (self.pillars * self.points * FEATURES * 4 + self.pillars * 8)
        of_points = self.pillars * self.points * self.width * element_bytes
        canvas = math.prod(self.grid) * self.width * element_bytes
        answers = sum(layer.num_outputs for layer in self.heads()) * 4
        outputs = sum(layer.num_outputs for layer in self.normed()) * element_bytes
        joined = 6 * self.width * self.places * element_bytes
        if phase.is_training:
            weights = self.num_parameters() * (16 + (element_bytes if element_bytes < 4 else 0))
            kept = ready + 3 * of_points + 2 * canvas + 2 * outputs + 2 * joined
            return int(weights + self.batch * (kept + 6 * answers + self.places * 8))
        weights = self.num_parameters() * (4 + (element_bytes if element_bytes < 4 else 0))
        at_work = max(2 * of_points, 2 * canvas, canvas + 3 * joined)
        return int(weights + self.batch * (ready + at_work + 2 * answers))
