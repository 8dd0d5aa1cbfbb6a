"""The styles that a tensor-parallel plan may name, as torch's ParallelStyle objects.

The names are those of the transformers library where it has one, so that its plans can be used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel


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


def style_of(name: str) -> ParallelStyle:
    """Return the style; ValueError for a name that has none here."""
    if name not in STYLES:
        raise ValueError(f"tensor-parallel style {name!r} is not one of {', '.join(STYLES)}")
    return STYLES[name]()
