"""Copies of a net, each on one device or cut over a few: DDP, and tensor parallelism inside it.

The gradients of copies are averaged by DDP, in buckets that overlap with the backward pass, or the
copies step alone and meet every H steps. What a copy's devices share among them is in `tensor.py`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from bench.core.nouns import Layout
from bench.parallel.laid_out import (
    AVERAGING_OVERLAP,
    CPU_POWERSGD_OVERLAP,
    DDP_OVERLAP,
    MIXED_OVERLAP,
    LaidOut,
    Replicas,
)
from bench.parallel.mitigations import Mitigation, parse_mitigation
from bench.workload import Phase, Workload

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    from bench.parallel.averaging import WeightAveraging


def replicate(
    net: nn.Module,
    *,
    workload: Workload,
    phase: Phase,
    layout: Layout,
    device: torch.device,
    is_compiled: bool,
) -> LaidOut:
    """Cut the net as the workload plans, if it shall be, and make copies of it."""
    import torch
    import torch.distributed as dist

    group = dist.group.WORLD
    assert group is not None
    laid_out = Replicas(net)
    if layout.strategy == "tp":
        from bench.parallel.tensor import cut

        laid_out, group = cut(net, workload=workload, phase=phase, layout=layout, device=device)
    if phase.is_training and (layout.data > 1 or layout.strategy == "ddp"):
        mitigation = parse_mitigation(layout.mitigate)
        if mitigation.averaging is None:
            laid_out.ddp = _ddp(net, layout=layout, mitigation=mitigation, group=group)
            laid_out.net = laid_out.ddp
            laid_out.overlap = MIXED_OVERLAP if laid_out.overlap else DDP_OVERLAP
            if mitigation.powersgd_rank is not None and device.type == "cpu":
                laid_out.overlap = CPU_POWERSGD_OVERLAP
        else:
            laid_out.averaging = _averaging(net, mitigation=mitigation, group=group)
            laid_out.overlap = AVERAGING_OVERLAP
            laid_out.period_steps = mitigation.period_steps
    if is_compiled:
        laid_out.net = torch.compile(laid_out.net)  # type: ignore[assignment]
    return laid_out


def _ddp(
    net: nn.Module, *, layout: Layout, mitigation: Mitigation, group: dist.ProcessGroup
) -> DistributedDataParallel:
    from torch.nn.parallel import DistributedDataParallel

    from bench.parallel.hooks import register_hook

    # Buffers here are constants or statistics of the copy; sending them in every step is no part
    # of data parallelism. The flag has another name from torch 2.13 on.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    flag = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    quiet: dict[str, Any] = {flag: False}
    # Without a size torch makes the first bucket small, to begin early; with its default it
    # does not.
    is_default = layout.bucket_bytes == Layout().bucket_bytes
    ddp = DistributedDataParallel(
        net,
        process_group=group,
        bucket_cap_mb=None if is_default else layout.bucket_bytes / 2**20,
        gradient_as_bucket_view=True,
        **quiet,
    )
    register_hook(ddp, mitigation, group=group)
    return ddp


def _averaging(
    net: nn.Module, *, mitigation: Mitigation, group: dist.ProcessGroup
) -> WeightAveraging:
    import torch

    from bench.parallel.averaging import OuterStep, WeightAveraging

    parameters = [one for one in net.parameters() if one.requires_grad]
    if mitigation.averaging == "postlocalsgd":
        return WeightAveraging(parameters, period_steps=mitigation.period_steps, group=group)
    half = {"fp16": torch.float16, "bf16": torch.bfloat16, None: None}[mitigation.half]
    return OuterStep(parameters, period_steps=mitigation.period_steps, group=group, dtype=half)
