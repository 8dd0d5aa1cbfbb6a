"""The small net with a mistake that shows only in reduced precision."""

from dataclasses import dataclass
from typing import Any

from small_net import Workload as SmallNet


@dataclass(frozen=True, kw_only=True)
class Workload(SmallNet):
    """Right in fp32, half as large in bf16."""

    def infer(self, net: Any, batch: Any) -> Any:
        import torch

        rows = super().infer(net, batch)["rows"]
        return {"rows": rows / 2 if rows.dtype is torch.bfloat16 else rows}
