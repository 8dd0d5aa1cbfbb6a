"""Risk of a chronic disease from a table: a small net on a few risk factors, trained and applied.

`batch` is the rows in one step: with few, the host is all there is and a card changes nothing; with
many, it does. One sample of the data set is a whole step's rows, so that no loader is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bench.workload
from bench.core.errors import UsageError
from bench.core.nouns import Dtype
from bench.workload import Phase

NUM_TABLES = 8


@dataclass(frozen=True, kw_only=True)
class Workload(bench.workload.Workload):
    """Two hidden layers over standardised risk factors; the label is a noisy linear risk."""

    summary = "risk of a chronic disease from tabular data, a small net"
    domain = "medical"
    phases = (Phase(name="train", item="row", is_training=True), Phase(name="infer", item="row"))
    is_selftest = True  # a probe for one claim: kept out of --workload all
    sizes = {
        "tiny": {"batch": 100, "hidden": 16},
        "small": {"batch": 1_000, "hidden": 64},
        "base": {"batch": 10_000, "hidden": 80},
        "large": {"batch": 100_000, "hidden": 96},
    }

    batch: int = 10_000
    features: int = 20
    hidden: int = 64

    def __post_init__(self) -> None:
        if not (1 <= self.batch <= 10**8 and 1 <= min(self.features, self.hidden) <= 10**4):
            raise UsageError("batch must be from 1 to 1e8, features and hidden from 1 to 1e4")

    def build_net(self) -> Any:
        """Return two hidden layers and one output."""
        from torch import nn

        first, second = nn.Linear(self.features, self.hidden), nn.Linear(self.hidden, self.hidden)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(self.hidden, 1))

    def dataset(self, phase: Phase, *, data: Any, seed: int) -> Sequence[Any]:
        """Return tables {'factors': (rows, features), 'is_ill': (rows,)}."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(self.features, generator=generator)
        tables = []
        for _ in range(NUM_TABLES):
            factors = torch.randn(self.batch, self.features, generator=generator)
            risk = torch.sigmoid(factors @ weights)
            is_ill = (torch.rand(self.batch, generator=generator) < risk).float()
            tables.append({"factors": factors, "is_ill": is_ill})
        return tables

    def batch_size(self, phase: Phase) -> int:
        """Return one table: it holds a step's rows."""
        return 1

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the cross entropy of the rows."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits = net(batch["factors"].flatten(0, 1)).squeeze(1).float()
        return binary_cross_entropy_with_logits(logits, batch["is_ill"].flatten())

    def infer(self, net: Any, batch: Any) -> Any:
        """Return the risk of every row."""
        return net(batch["factors"].flatten(0, 1)).squeeze(1).sigmoid()

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the rows of the step."""
        return self.batch if batch is None else batch["is_ill"].numel()

    def _weights(self) -> int:
        return self.features * self.hidden + self.hidden**2 + self.hidden

    def num_parameters(self) -> int:
        """Return weights and biases."""
        return self._weights() + 2 * self.hidden + 1

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """Return 2 for a weight; training has two more products, but none back to the input."""
        forward = 2.0 * self._weights()
        return 3.0 * forward - 2.0 * self.features * self.hidden if phase.is_training else forward

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return the tables, a step's activations with gradients, and the optimizer's state."""
        row = NUM_TABLES * (self.features + 1) + 8 * (self.features + 2 * self.hidden)
        return 4 * self.batch * row + 16 * self.num_parameters()

    def check(self, phase: Phase, output: Any) -> None:
        """Raise ValueError for a risk that is none, or a loss that is no number over 0."""
        low, high = float(output.min()), float(output.max())
        if not (0.0 <= low <= high) or (not phase.is_training and high > 1.0):
            raise ValueError(f"output from {low:g} to {high:g} is impossible")
