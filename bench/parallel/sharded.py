"""FSDP2 over all ranks: each unit's weights are gathered when it runs and dropped after it.

In bf16 and fp16 the weights travel in that dtype and gradients are summed in fp32, as torch's own
training recipes do (https://docs.pytorch.org/tutorials/intermediate/FSDP_tutorial.html).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from bench.core.errors import UsageError
from bench.core.nouns import Dtype
from bench.parallel.laid_out import DDP_OVERLAP, HALF_TYPES, NO_STREAMS, LaidOut
from bench.workload import Phase


def shard(
    net: nn.Module,
    *,
    units: Sequence[nn.Module],
    phase: Phase,
    device: torch.device,
    dtype: Dtype,
    is_compiled: bool,
) -> LaidOut:
    """Shard the units, then what is left of the net, over all ranks.

    Raises UsageError for weights that are not contiguous.
    """
    if not all(one.is_contiguous() for one in net.parameters()):
        raise UsageError(
            "torch's FSDP takes no channels-last weights; leave --channels-last out, or use "
            "--parallel ddp"
        )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("dp",))
    half = HALF_TYPES.get(dtype) if phase.is_training else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=half and torch.float32)
    for unit in units or default_units(net):
        if is_compiled:
            unit.compile()
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    fully_shard(net, mesh=mesh, mp_policy=policy)
    return _Sharded(net, overlap=NO_STREAMS if device.type == "cpu" else DDP_OVERLAP)


def default_units(net: nn.Module) -> list[nn.Module]:
    """Return the outermost members of ModuleLists that have weights, else the direct children."""
    chosen: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in net.modules():
        if not isinstance(module, nn.ModuleList) or module in inside:
            continue
        for member in module:
            if member not in inside and _has_parameters(member):
                chosen.append(member)
                inside.update(member.modules())
    return chosen or [child for child in net.children() if _has_parameters(child)]


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


class _Sharded(LaidOut):
    """Weights, gradients and the optimizer's state are DTensors, each rank holding its part."""

    @contextlib.contextmanager
    def sync(self, is_last_micro_batch: bool) -> Iterator[None]:
        assert isinstance(self.net, FSDPModule)
        self.net.set_requires_gradient_sync(is_last_micro_batch)
        self.net.set_is_last_backward(is_last_micro_batch)
        yield

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        # Left to itself torch steps DTensors one by one, and plain tensors all at once.
        for group in optimizer.param_groups:
            if "foreach" in group and group["foreach"] is None and not group.get("fused"):
                group["foreach"] = next(iter(group["params"])).device.type != "cpu"

    def clip(self, max_norm: float) -> None:
        norm = get_total_norm([one.grad for one in self.parameters if one.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        clip_grads_with_norm_(self.parameters, max_norm, norm)
