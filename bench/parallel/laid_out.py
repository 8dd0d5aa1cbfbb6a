"""A net over the ranks of torch's default process group, as a layout says and a step needs it.

The group exists already and may be real, throttled or emulated: nothing here knows which. By itself
a `LaidOut` is a net on one device.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bench.core.nouns import Dtype, Layout
from bench.workload import Phase, Workload

if TYPE_CHECKING:
    from bench.parallel.replicas import WeightAveraging

HALF_TYPES: dict[Dtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
DDP_OVERLAP = "yes"
AT_ONCE = "tensor-parallel results are needed at once"
NO_STREAMS = "none: torch runs FSDP on a CPU without streams"


class LaidOut:
    """A net laid over its devices, and what a step must do differently for that.

    `net` is what the workload calls; `module` the built net, whose parameters an optimizer takes;
    `overlap` says whether communication can run beside compute; `period_steps` is how many
    optimizer steps lie between two communications of weights (1: every step communicates alike).
    Copies average their gradients by DDP, or their weights every so many steps.
    """

    ddp: DistributedDataParallel | None = None
    averaging: WeightAveraging | None = None

    def __init__(self, net: nn.Module, *, overlap: str = "") -> None:
        self.net = net
        self.module = net
        self.overlap = overlap
        self.period_steps = 1

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters on this rank; looked up once, for it takes longer than a small step."""
        return list(self.module.parameters())

    def sync(self, is_last_micro_batch: bool) -> contextlib.AbstractContextManager[Any]:
        """Return the context of one micro-batch's forward and backward pass.

        Gradients are exchanged in the last micro-batch of an optimizer step only.
        """
        if self.ddp is None or is_last_micro_batch:
            return contextlib.nullcontext()
        return self.ddp.no_sync()

    def local_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss as a plain tensor."""
        return loss

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Take note of the optimizer of `module`'s parameters before its first step."""

    def gradient_scaler(self) -> torch.amp.GradScaler:
        """Return the scaler for fp16 whose ranks agree on when to skip a step."""
        return torch.amp.GradScaler(self.parameters[0].device.type)

    def clip(self, max_norm: float) -> None:
        """Scale gradients down to a total norm over all ranks."""
        torch.nn.utils.clip_grad_norm_(self.parameters, max_norm)

    def after_step(self) -> None:
        """Average weights where that is asked for."""
        if self.averaging is not None:
            self.averaging.after_step()


def lay_out(
    net: nn.Module,
    *,
    workload: Workload,
    phase: Phase,
    layout: Layout,
    device: torch.device,
    dtype: Dtype,
    is_compiled: bool = False,
    compile_mode: str | None = None,
) -> LaidOut:
    """Lay the net, already on `device`, over the ranks of the default process group.

    torch.compile is applied here, because its place depends on the strategy: outside DDP, which
    lets torch cut the graph at the buckets so that they overlap; inside FSDP, unit by unit. Its
    `compile_mode` is for one device alone. Raises ValueError when the group's size is not
    `layout.devices` or a plan does not fit the net, and for pipelines, which are not run.
    """
    if layout.strategy is None or (layout.devices == 1 and not dist.is_initialized()):
        laid_out = LaidOut(net)
        if is_compiled:
            laid_out.net = torch.compile(net, mode=compile_mode)  # type: ignore[assignment]
        return laid_out
    if dist.get_world_size() != layout.devices:
        raise ValueError(f"{dist.get_world_size()} ranks, but the layout has {layout.devices}")
    if layout.strategy == "pp":
        raise ValueError("stages are simulated from single-device measurements, not run")
    if layout.strategy == "fsdp":
        from bench.parallel.sharded import shard

        units = workload.shard_units(net)
        return shard(
            net, units=units, phase=phase, device=device, dtype=dtype, is_compiled=is_compiled
        )
    from bench.parallel.replicas import replicate

    return replicate(
        net, workload=workload, phase=phase, layout=layout, device=device, is_compiled=is_compiled
    )
