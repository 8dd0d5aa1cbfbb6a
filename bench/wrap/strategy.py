"""How a program spreads its work: seen by the modules and parameters that it made."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from bench.core.nouns import Layout, Strategy
from bench.parallel.laid_out import AT_ONCE, DDP_OVERLAP, NO_STREAMS


def strategy_in_use(parameters: Iterable[torch.Tensor]) -> Strategy | None:
    """Return what is used of torch's own strategies, the one that cuts most; None for none."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    sharded = () if fsdp is None else (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)
    trained = {id(one): one for one in parameters}
    kinds = {
        type(module)
        for module in gc.get_objects()
        if issubclass(type(module), (*sharded, DistributedDataParallel))
        and any(id(one) in trained for one in module.parameters())
    }
    if any(issubclass(kind, sharded) for kind in kinds):
        return "fsdp"
    tensor: Any = sys.modules.get("torch.distributed.tensor")
    if tensor is not None and any(isinstance(one, tensor.DTensor) for one in trained.values()):
        return "tp"
    return "ddp" if kinds else None


def overlap_of(layout: Layout, *, in_use: Strategy | None, is_cpu: bool) -> str:
    """Say whether communication runs beside compute, as `LaidOut.overlap`; '' where unknown."""
    if layout.tensor > 1:
        return f"none: {AT_ONCE}" if layout.data == 1 else f"data-parallel part only: {AT_ONCE}"
    if in_use == "fsdp":
        return NO_STREAMS if is_cpu else DDP_OVERLAP
    return DDP_OVERLAP if in_use == "ddp" else ""
