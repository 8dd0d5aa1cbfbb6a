"""A small net for real trials on the CPU, with faults that `fault` names."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.workload import Phase

FEATURES = 16
STEP_S = 0.02
"""So long that a step hides what the loader takes."""


class Rows(list[Any]):
    """Rows that take their time."""

    delay_s = 0.0

    def __getitem__(self, index: Any) -> Any:
        time.sleep(self.delay_s)
        return super().__getitem__(index)


@dataclass(frozen=True, kw_only=True)
class Workload(bench.workload.Workload):
    """A linear layer, trained and used."""

    sizes = {"tiny": {"batch": 4}}
    accepts_data = "any folder"

    fault: str = "none"
    delay_s: float = 0.0

    def build_net(self) -> Any:
        from torch import nn

        return nn.Linear(FEATURES, FEATURES)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Any:
        import torch

        rows = Rows(torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(seed)))
        rows.delay_s = self.delay_s
        return rows

    def optimizer(self, net: Any) -> Any:
        from torch.optim import SGD

        return SGD(net.parameters(), lr=1e-3)

    def loss(self, net: Any, batch: Any) -> Any:
        time.sleep(STEP_S)
        loss = net(batch).square().mean()
        return loss * float("nan") if self.fault == "nan" else loss

    def infer(self, net: Any, batch: Any) -> Any:
        time.sleep(STEP_S)
        rows = net(batch)
        return {"rows": rows * float("nan") if self.fault == "nan_output" else rows}

    def check(self, phase: Phase, output: Any) -> None:
        if self.fault == "check":
            raise ValueError("no row may look like this in finance")

    def items(self, phase: Phase, batch: Any) -> int:
        return self.batch if batch is None else len(batch)

    def num_parameters(self) -> int:
        return FEATURES * (FEATURES + 1)

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float | None:
        return 2.0 * FEATURES * FEATURES * (2 if phase.is_training else 1)

    def memory_bytes(self, phase: Phase, *, dtype: str) -> int:
        return 10**6
