"""A small net whose author declares `times` its FLOPs and `more` than its parameters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.workload import Phase

WIDTH = 128


@dataclass(frozen=True, kw_only=True)
class Workload(bench.workload.Workload):
    """Two linear layers."""

    batch: int = 32
    times: float = 1.0
    more: int = 0
    refuses: bool = False
    """The net cannot run under a dispatch mode, as flex_attention cannot."""

    def build_net(self) -> Any:
        from torch import nn

        return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Any:
        import torch

        return torch.randn(128, WIDTH, generator=torch.Generator().manual_seed(seed))

    def loss(self, net: Any, batch: Any) -> Any:
        return net(batch).square().mean()

    def infer(self, net: Any, batch: Any) -> Any:
        from torch.utils._python_dispatch import _get_current_dispatch_mode

        if self.refuses and _get_current_dispatch_mode() is not None:
            raise RuntimeError("found no compiled frames")
        return net(batch)

    def items(self, phase: Phase, batch: Any) -> int:
        return self.batch if batch is None else len(batch)

    def num_parameters(self) -> int:
        return 2 * WIDTH * (WIDTH + 1) + self.more

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float | None:
        # The first layer's input has no gradient.
        products = 5 if phase.is_training else 2
        return self.times * products * 2 * WIDTH**2

    def memory_bytes(self, phase: Phase, *, dtype: str) -> int:
        return 10**7
