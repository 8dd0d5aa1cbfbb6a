"""Is the output right? Each trial compares this device, dtype and compilation with the CPU at tiny.

The reference is an eager fp32 run on the CPU with the same weights and the same batch. A training
phase compares the loss and the gradient's norm of one step, another phase the floating-point part
of its output (`Workload.comparable`). A fast wrong answer makes the row INVALID.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.core.nouns import Dtype
from bench.measure.engine.feed import make_loader
from bench.measure.engine.placing import place_net
from bench.measure.engine.precision import (
    autocast,
    cast_net,
    float_tensors,
    half_type,
    layout_of,
    move,
)
from bench.workload import Phase, Workload

if TYPE_CHECKING:
    import torch
    from torch import nn

# Tolerances for the relative L2 distance: the unit roundoff (bf16 2^-9, fp16 and tf32 2^-11, fp32
# 2^-24) times a growth over some tens of layers; fp32 leaves room for other orders of summation
# and for transform-based convolutions.
TOLERANCE_FRAC: dict[Dtype, float] = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 6e-2, "fp16": 2e-2}


@dataclass(frozen=True, kw_only=True)
class Check:
    """Outcome of the comparison; `error_frac` None means that the output was not finite."""

    value: float | None
    error_frac: float | None
    tolerance_frac: float

    @property
    def is_wrong(self) -> bool:
        """Whether the output differs by more than the tolerance."""
        return self.error_frac is not None and self.error_frac > self.tolerance_frac


def check_output(
    tiny: Workload,
    phase: Phase,
    *,
    device: torch.device,
    dtype: Dtype,
    is_compiled: bool,
    compile_mode: str | None,
    channels_last: bool,
    seed: int,
) -> Check:
    """Run `tiny` once on the CPU in fp32 and once as configured, and compare."""
    import torch

    torch.manual_seed(seed)
    net = tiny.build_net()
    loader = make_loader(
        tiny, phase, data=None, seed=seed, workers=0, pin_memory=False, start_method=None
    )
    batch = next(iter(loader))
    cpu = torch.device("cpu")
    expected = _output(tiny, phase, copy.deepcopy(net), batch, device=cpu, dtype="fp32")
    net = cast_net(place_net(net, device=device), dtype=dtype, is_training=phase.is_training)
    if channels_last:
        net = to_channels_last(net)
    if is_compiled:
        net = torch.compile(net, mode=compile_mode)  # type: ignore[assignment]
    half = None if phase.is_training else half_type(dtype)
    ready = move(batch, device=device, half=half, channels_last=channels_last)
    actual = _output(tiny, phase, net, ready, device=device, dtype=dtype)
    return compare(actual, expected, tolerance_frac=TOLERANCE_FRAC[dtype])


def to_channels_last(net: nn.Module) -> nn.Module:
    """Lay out convolution weights channels last, 2-D and 3-D each in its format."""
    for parameter in net.parameters():
        memory_format = layout_of(parameter.dim())
        if memory_format is not None:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
    return net


def _output(
    tiny: Workload,
    phase: Phase,
    net: nn.Module,
    batch: Any,
    *,
    device: torch.device,
    dtype: Dtype,
) -> torch.Tensor:
    """Return what is compared, flat in fp64 on the CPU."""
    import torch

    # Random masks differ between devices even with one seed.
    torch.manual_seed(0)
    if phase.is_training:
        net.train()
        with autocast(device.type, dtype):
            loss = tiny.loss(net, batch)
        # fp16 gradients are scaled as in training, or the small ones would vanish.
        scale = 1024.0 if dtype == "fp16" else 1.0
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad.float().cpu() for p in net.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(g.double().pow(2).sum()) for g in gradients)) / scale
        return torch.tensor([float(loss.detach()), norm], dtype=torch.float64)
    net.eval()
    with torch.inference_mode(), autocast(device.type, dtype):
        output = getattr(tiny, phase.name)(net, tiny.prepare(phase, net, batch))
    tiny.check(phase, output)
    tensors = float_tensors(tiny.comparable(phase, output))
    return torch.cat([tensor.detach().float().cpu().double().reshape(-1) for tensor in tensors])


def compare(actual: torch.Tensor, expected: torch.Tensor, *, tolerance_frac: float) -> Check:
    """Relative L2 distance of two flat tensors; the value is the mean magnitude of `actual`."""
    import torch

    if actual.numel() == 0 or actual.shape != expected.shape:
        raise ValueError(f"outputs of shape {tuple(actual.shape)} and {tuple(expected.shape)}")
    if not bool(torch.isfinite(actual).all()):
        return Check(value=None, error_frac=None, tolerance_frac=tolerance_frac)
    scale = float(expected.norm())
    error = float((actual - expected).norm())
    return Check(
        value=float(actual.abs().mean()),
        error_frac=error / scale if scale > 0 else error,
        tolerance_frac=tolerance_frac,
    )
