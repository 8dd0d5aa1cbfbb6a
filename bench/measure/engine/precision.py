"""What a dtype means while measuring, and how a net and its batches get to the device in it.

fp32 is IEEE everywhere (TF32 off, also in convolutions, where torch's default is on); tf32 turns
TF32 on; bf16 and fp16 train under autocast with fp32 weights, fp16 with gradient scaling, and infer
with weights in that dtype, as they are served.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bench.core.nouns import Dtype
from bench.parallel.laid_out import HALF_TYPES

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Layout of images and of volumes, by the number of dimensions."""


def set_matmul_precision(dtype: Dtype) -> None:
    """Turn TF32 on for tf32 and off for everything else.

    Through torch's older switches first: inductor of torch 2.10 reads them, and raises where they
    and the newer ones disagree.
    """
    backends: Any = torch.backends
    mode = "tf32" if dtype == "tf32" else "ieee"
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    backends.mkldnn.matmul.fp32_precision = "ieee"
    backends.cudnn.allow_tf32 = dtype == "tf32"
    backends.cudnn.conv.fp32_precision = mode
    backends.cudnn.rnn.fp32_precision = mode


def autocast(device_type: str, dtype: Dtype) -> Any:
    """Return the context that a forward pass runs in."""
    half = HALF_TYPES.get(dtype)
    return contextlib.nullcontext() if half is None else torch.autocast(device_type, dtype=half)


def place_net(
    net: nn.Module,
    *,
    device: torch.device,
    half: torch.dtype | None = None,
    channels_last: bool = False,
) -> nn.Module:
    """Move the net to its device, its weights in that dtype and layout.

    `Module.to` keeps a parameter that two modules share (tied embeddings) shared only between the
    backends that torch ships: elsewhere each module gets one of its own, and gradient, optimizer
    state and memory are another net's. So what is shared is joined again by name.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    if half is not None:
        net = net.to(half)
    net = net.to(device)
    for first, *others in names.values():
        for name in others:
            module, _, attribute = name.rpartition(".")
            setattr(net.get_submodule(module), attribute, net.get_parameter(first))
    for parameter in net.parameters() if channels_last else ():
        parameter.data = _channels_last(parameter.data)
    return net


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """Lay out images and volumes channels last, each in its format."""
    memory_format = _CHANNELS_LAST.get(tensor.dim())
    return tensor if memory_format is None else tensor.contiguous(memory_format=memory_format)


def move(value: Any, *, device: torch.device, half: torch.dtype | None, channels_last: bool) -> Any:
    """Copy tensors in nested dicts, lists and tuples to the device, in its dtype and layout."""

    def moved(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            there = value.to(device, half if value.is_floating_point() else None, non_blocking=True)
            return _channels_last(there) if channels_last else there
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [moved(item) for item in value]
        return tuple(map(moved, value)) if isinstance(value, tuple) else value

    return moved(value)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested dicts, lists, tuples and dataclass outputs."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def float_tensors(value: Any) -> list[torch.Tensor]:
    """Return the floating-point tensors among them."""
    return [tensor for tensor in tensors(value) if tensor.is_floating_point()]
