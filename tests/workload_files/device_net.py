"""A small net for trials on an accelerator: many operators, memory that grows with the batch."""

from dataclasses import dataclass
from typing import Any

from small_net import Workload as SmallNet

from bench.workload import TRAIN

NUM_OPERATORS = 60


@dataclass(frozen=True, kw_only=True)
class Workload(SmallNet):
    """A linear layer whose loss is on whatever device is current."""

    phases = (TRAIN,)

    def loss(self, net: Any, batch: Any) -> Any:
        import torch

        for _ in range(NUM_OPERATORS):
            batch = batch.relu()
        torch.empty(len(batch), 2**20, dtype=torch.uint8, device=batch.device)
        # Triton and vendors' libraries launch on the current device, whatever the tensors' is.
        current = torch.device(batch.device.type) if batch.device.type != "cpu" else batch.device
        return net(batch).square().mean() + torch.zeros((), device=current)
