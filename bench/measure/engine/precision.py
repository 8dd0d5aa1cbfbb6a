"""What a dtype means while measuring.

fp32 is IEEE everywhere (TF32 off, also in convolutions, where torch's default is on); tf32 turns
TF32 on; bf16 and fp16 train under autocast with fp32 weights, fp16 with gradient scaling, and infer
with weights in that dtype, as they are served.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.core.nouns import Dtype

if TYPE_CHECKING:
    import torch
    from torch import nn

DTYPE_BYTES: dict[Dtype, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}


def half_type(dtype: Dtype) -> torch.dtype | None:
    """Return the 16-bit torch dtype, or None for fp32 and tf32."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype)


def set_matmul_precision(dtype: Dtype) -> None:
    """Turn TF32 on for tf32 and off for everything else.

    Through torch's older switches first: inductor of torch 2.10 reads them, and raises where they
    and the newer ones disagree.
    """
    import torch

    mode = "tf32" if dtype == "tf32" else "ieee"
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.conv.fp32_precision = mode  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = mode  # type: ignore[attr-defined]


def autocast(device_type: str, dtype: Dtype) -> Any:
    """Return the context that a forward pass runs in."""
    import contextlib

    import torch

    half = half_type(dtype)
    if half is None:
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=half)


def cast_net(net: nn.Module, *, dtype: Dtype, is_training: bool) -> nn.Module:
    """Put an inference net's weights in the 16-bit dtype; training keeps fp32 weights."""
    half = half_type(dtype)
    return net if is_training or half is None else net.to(half)


def move(value: Any, *, device: torch.device, half: torch.dtype | None, channels_last: bool) -> Any:
    """Copy tensors in nested dicts, lists and tuples to the device, in its dtype and layout."""
    import torch

    def moved(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            dtype = half if half is not None and value.is_floating_point() else None
            there = value.to(device, dtype, non_blocking=True)
            memory_format = layout_of(there.dim()) if channels_last else None
            return there if memory_format is None else there.contiguous(memory_format=memory_format)
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [moved(item) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        return value

    return moved(value)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested dicts, lists, tuples and dataclass outputs."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def float_tensors(value: Any) -> list[torch.Tensor]:
    """Return the floating-point tensors among them."""
    return [tensor for tensor in tensors(value) if tensor.is_floating_point()]


def layout_of(num_dims: int) -> torch.memory_format | None:
    """Channels-last layout for images (4) and volumes (5 dimensions), else None."""
    import torch

    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return formats.get(num_dims)
