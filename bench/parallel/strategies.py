"""Lays a net over the ranks of torch's default process group, as a layout says.

Pipelines are not run, they are simulated from their stages, and so they are refused here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.core.nouns import Dtype, Layout
from bench.parallel.laid_out import LaidOut
from bench.parallel.replicas import replicate
from bench.parallel.sharded import shard
from bench.workload import Phase, Workload

if TYPE_CHECKING:
    import torch
    from torch import nn


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
    `layout.devices` or a plan does not fit the net.
    """
    import torch
    import torch.distributed as dist

    if layout.strategy is None or (layout.devices == 1 and not dist.is_initialized()):
        laid_out = LaidOut(net)
        if is_compiled:
            laid_out.net = torch.compile(net, mode=compile_mode)  # type: ignore[assignment]
        return laid_out
    if dist.get_world_size() != layout.devices:
        raise ValueError(f"{dist.get_world_size()} ranks, but the layout has {layout.devices}")
    if layout.strategy == "fsdp":
        units = workload.shard_units(net)
        return shard(
            net, units=units, phase=phase, device=device, dtype=dtype, is_compiled=is_compiled
        )
    if layout.strategy == "pp":
        raise ValueError("stages are simulated from single-device measurements, not run")
    return replicate(
        net, workload=workload, phase=phase, layout=layout, device=device, is_compiled=is_compiled
    )
