"""A step that takes a known time: `sleep-train` and `sleep-infer`, to test the harness itself.

The net is one tiny linear layer; the forward pass then waits until exactly `seconds` have gone by
since it began, `train_factor` times as long when training. What a training step does after its
loss (backward and SGD of nine parameters, some tenths of a millisecond) comes on top.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bench.workload
from bench.core.errors import UsageError
from bench.core.nouns import Dtype
from bench.workload import Phase

FEATURES = 8
NUM_SAMPLES = 64
# Sleeping overshoots by the timer slack (50 us on Linux, man 2 prctl) and by the scheduler; the
# rest of the wait is spent spinning.
SPIN_S = 2e-3


def wait_until(deadline_s: float) -> None:
    """Return when `time.perf_counter()` reaches the deadline, and not before."""
    while (left_s := deadline_s - time.perf_counter()) > 0:
        if left_s > SPIN_S:
            time.sleep(left_s - SPIN_S)


@dataclass(frozen=True, kw_only=True)
class Workload(bench.workload.Workload):
    """A wait with a net beside it."""

    summary = "self-test: a step that takes a known time"
    domain = "selftest"
    is_selftest = True
    sizes = {
        "tiny": {"seconds": 0.02},
        "small": {"seconds": 0.05},
        "base": {"seconds": 0.1},
        "large": {"seconds": 0.2},
    }

    seconds: float = 0.1
    train_factor: float = 3.0
    """A training step takes this many times as long."""

    def __post_init__(self) -> None:
        for name in ("seconds", "train_factor", "batch"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be greater than 0, not {getattr(self, name)}")

    def build_net(self) -> Any:
        """Return the linear layer."""
        from torch import nn

        return nn.Linear(FEATURES, 1)

    def dataset(self, phase: Phase, *, data: Any, seed: int) -> Sequence[Any]:
        """Return random rows."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        return list(torch.rand(NUM_SAMPLES, FEATURES, generator=generator))

    def optimizer(self, net: Any) -> Any:
        """Return plain SGD, the cheapest."""
        from torch.optim import SGD

        return SGD(net.parameters(), lr=1e-3)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the sum of the net's output, when the time is up."""
        deadline_s = time.perf_counter() + self.seconds * self.train_factor
        loss = net(batch).sum()
        wait_until(deadline_s)
        return loss

    def infer(self, net: Any, batch: Any) -> Any:
        """Return the net's output, when the time is up."""
        deadline_s = time.perf_counter() + self.seconds
        output = net(batch)
        wait_until(deadline_s)
        return output

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the samples of the batch."""
        return self.batch if batch is None else len(batch)

    def num_parameters(self) -> int:
        """Return the linear layer's weights and bias."""
        return FEATURES + 1

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """Return a product with the weights; training adds the weights' gradient."""
        return 2.0 * FEATURES * (2 if phase.is_training else 1)

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return next to nothing: weights, gradients, the batch."""
        return 4 * (2 * self.num_parameters() + self.batch * (FEATURES + 1))

    def simulated_step_s(self, phase: Phase) -> float:
        """Return what a step takes on any device."""
        return self.seconds * (self.train_factor if phase.is_training else 1.0)
