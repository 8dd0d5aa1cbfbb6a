"""Tensor parallelism: matrices cut over neighbouring ranks, by torch's DTensor and its styles.

`parallelize_module` cuts the weights. After it they become plain parameters again, each rank's own
part, seen as a DTensor only while a layer computes: so DDP, its hooks, optimizers and scalers work
on them as on any other, and only the norm of the gradients has to know which are parts.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn.utils import parametrize

from bench.core.nouns import Layout
from bench.parallel.laid_out import AT_ONCE, LaidOut
from bench.workload import Phase, TensorPlan, Workload


def cut(
    net: nn.Module, *, workload: Workload, phase: Phase, layout: Layout, device: torch.device
) -> tuple[LaidOut, dist.ProcessGroup]:
    """Cut the net in place; return it, and the group of this rank's copies.

    Neighbouring ranks share a copy, so that with nodes a copy stays inside one.
    """
    shape = (layout.data, layout.tensor)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("dp", "tp"))
    plan = workload.tensor_parallel_plan(phase)
    if plan is None:
        raise ValueError("the workload has no plan for tensor parallelism")
    tied = _tied_weights(net)
    _teach_detach()
    parallelize_module(net, mesh["tp"], _styles(net, plan), src_data_rank=None)
    parts = _localize(net)
    _tie(net, tied)
    cut_parts = set(net.parameters()).intersection(parts)
    return _Cut(net, parts=cut_parts, mesh=mesh["tp"]), mesh.get_group("dp")


@functools.cache
def _teach_detach() -> None:
    """Let DTensors be detached in place, as inference mode does: torch 2.10 has no rule for it."""
    from torch.distributed.tensor.experimental import register_sharding

    propagator = DTensor._op_dispatcher.sharding_propagator
    operator = torch.ops.aten.detach_.default
    if operator in propagator.op_strategy_funcs or operator in propagator.op_to_rules:
        return

    def anywhere(x: Any) -> list[tuple[list[Placement], list[Placement]]]:
        places: list[Placement] = [Replicate(), *map(Shard, range(x.ndim))]
        return [([place], [place]) for place in places]

    register_sharding(operator)(anywhere)


def _styles(net: nn.Module, plan: TensorPlan) -> dict[str, ParallelStyle]:
    """Return the plan's styles; ValueError for a path that no module has: torch only warns."""
    named = (getattr(net, "tp_plan", None) or None) if plan.styles is None else plan.styles
    if named is None:
        raise ValueError(f"{type(net).__name__} brings no tensor-parallel plan of its own")
    modules = [name for name, _ in net.named_modules()]
    for path, name in named.items():
        depth = path.count(".")
        if not any(fnmatch.fnmatch(one, path) and one.count(".") == depth for one in modules):
            raise ValueError(f"the tensor-parallel plan names {path!r}, which the net lacks")
        if name not in STYLES:
            raise ValueError(f"tensor-parallel style {name!r} is not one of {', '.join(STYLES)}")
    return {path: STYLES[name]() for path, name in named.items()}


# The styles of a plan -----------------------------------------------------------------------------


class SharedInput(ParallelStyle):
    """Makes a layer's input distributed before its column-wise children read it.

    Else each of them would sum the gradient of the same input over the ranks by itself: three
    all-reduces for an attention's q, k and v instead of one. Under autocast the input is cast here,
    so that its gradient travels in the dtype of the products.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def share(_module: nn.Module, args: Any, kwargs: Any) -> Any:
            if args:
                return (_shared(args[0], device_mesh), *args[1:]), kwargs
            name = next(key for key, value in kwargs.items() if torch.is_tensor(value))
            return args, {**kwargs, name: _shared(kwargs[name], device_mesh)}

        module.register_forward_pre_hook(share, with_kwargs=True)
        return module


def _shared(x: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    if isinstance(x, DTensor):
        return x
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return DTensor.from_local(x, mesh, [Replicate()], run_check=False)


STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "colwise": ColwiseParallel,
    "rowwise": RowwiseParallel,
    "colwise_gather_output": lambda: ColwiseParallel(output_layouts=Replicate()),
    "colwise_logits": lambda: ColwiseParallel(output_layouts=Shard(-1), use_local_output=False),
    "embedding_rowwise": lambda: RowwiseParallel(input_layouts=Replicate()),
    "shared_input": SharedInput,
}


# Weights that are parts ---------------------------------------------------------------------------


class _AsDistributed(nn.Module):
    """What a layer sees of its weight: the whole as a DTensor, of which this rank holds a part."""

    def __init__(self, whole: DTensor) -> None:
        super().__init__()
        self._mesh, self._placements = whole.device_mesh, whole.placements
        self._shape, self._stride = whole.shape, whole.stride()

    def forward(self, part: torch.Tensor) -> torch.Tensor:
        return DTensor.from_local(
            part,
            self._mesh,
            self._placements,
            run_check=False,
            shape=self._shape,
            stride=self._stride,
        )


def _localize(net: nn.Module) -> list[nn.Parameter]:
    """Replace every distributed parameter by this rank's part of it; return the cut ones."""
    parts = []
    for module in list(net.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            whole = parameter.data
            if not isinstance(whole, DTensor):
                continue
            # A copy: the part is a view that would keep the whole in memory.
            part = nn.Parameter(whole.to_local().clone(), requires_grad=parameter.requires_grad)
            setattr(module, name, part)
            view = _AsDistributed(whole)
            parametrize.register_parametrization(module, name, view, unsafe=True)
            if any(placement.is_shard() for placement in whole.placements):
                parts.append(_original(module, name))
    return parts


def _original(module: nn.Module, name: str) -> nn.Parameter:
    parametrizations = getattr(module, "parametrizations", {})
    if name in parametrizations:
        return parametrizations[name].original  # type: ignore[no-any-return]
    return getattr(module, name)  # type: ignore[no-any-return]


_Places = list[tuple[nn.Module, str]]


def _tied_weights(net: nn.Module) -> list[_Places]:
    places: dict[nn.Parameter, _Places] = {}
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            places.setdefault(parameter, []).append((module, name))
    return [found for found in places.values() if len(found) > 1]


def _tie(net: nn.Module, tied: list[_Places]) -> None:
    for (first, first_name), *others in tied:
        kept = _original(first, first_name)
        for module, name in others:
            other = _original(module, name)
            if other is kept:
                continue
            if other.shape != kept.shape or not parametrize.is_parametrized(module, name):
                raise ValueError(f"the plan cuts only one of two layers that share {name}")
            module.parametrizations[name].original = kept  # type: ignore[index,union-attr]


# What a step does differently ---------------------------------------------------------------------


class _Cut(LaidOut):
    """Each copy is cut: some weights are a rank's parts, and its ranks must agree."""

    def __init__(self, net: nn.Module, *, parts: set[nn.Parameter], mesh: DeviceMesh) -> None:
        super().__init__(net, overlap=f"none: {AT_ONCE}")
        self._parts = parts
        self._mesh = mesh
        self._group = mesh.get_group()

    @contextlib.contextmanager
    def sync(self, is_last_micro_batch: bool) -> Iterator[None]:
        # In it cross_entropy takes logits that are cut by class.
        with loss_parallel(), super().sync(is_last_micro_batch):
            yield

    def local_loss(self, loss: torch.Tensor) -> torch.Tensor:
        return loss.to_local() if isinstance(loss, DTensor) else loss

    def gradient_scaler(self) -> torch.amp.GradScaler:
        """Return a scaler that skips a step on all ranks of the copy or on none."""
        return _AgreeingScaler(self._mesh.device_type, group=self._group)

    def clip(self, max_norm: float) -> None:
        """Clip to the norm of the whole gradient: parts are added up, copies counted once."""
        gradients = {one: one.grad for one in self.parameters if one.grad is not None}
        cut = [gradient for one, gradient in gradients.items() if one in self._parts]
        same = [gradient for one, gradient in gradients.items() if one not in self._parts]
        squared, rest = (  # of none it is 0.0 on the CPU
            torch.nn.utils.get_total_norm(some).square().to(self.parameters[0].device)
            for some in (cut, same)
        )
        dist.all_reduce(squared, group=self._group)
        torch.nn.utils.clip_grads_with_norm_(gradients, max_norm, (squared + rest).sqrt())


class _AgreeingScaler(torch.amp.GradScaler):
    """Ranks that hold parts see an overflow in different parts."""

    def __init__(self, device_type: str, *, group: dist.ProcessGroup) -> None:
        super().__init__(device_type)
        self._group = group

    def _unscale_grads_(self, *args: Any, **kwargs: Any) -> dict[torch.device, torch.Tensor]:
        found = super()._unscale_grads_(*args, **kwargs)
        for is_infinite in found.values():
            dist.all_reduce(is_infinite, op=dist.ReduceOp.MAX, group=self._group)
        return found
