"""Is the output right? Each trial compares this device, dtype and compilation with the CPU at tiny.

The reference is an eager fp32 run on the CPU with the same weights and the same batch. A training
phase compares the loss and the gradient's norm of one step, another phase the floating-point part
of its output (`Workload.comparable`). A fast wrong answer makes the row INVALID.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.core.nouns import Config, Dtype
from bench.measure.engine.feed import make_loader
from bench.measure.engine.precision import autocast, float_tensors, move, place_net
from bench.parallel.laid_out import HALF_TYPES
from bench.workload import Phase, Workload

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
    def problem(self) -> tuple[str, str] | None:
        """Reason code and words for what is wrong, or None."""
        if self.error_frac is None:
            return "nonfinite", "the output at tiny is not finite"
        if self.error_frac <= self.tolerance_frac:
            return None
        words = f"output at tiny is {self.error_frac:.2g} from the CPU's fp32 result"
        return "wrong_output", f"{words}, tolerance {self.tolerance_frac:.2g}"


def check_output(tiny: Workload, phase: Phase, *, config: Config, device: torch.device) -> Check:
    """Run `tiny` once on the CPU in fp32 and once on the device as configured, and compare."""
    torch.manual_seed(config.seed)
    net = tiny.build_net()
    batch = next(iter(make_loader(tiny, phase, data=None, seed=config.seed)))
    cpu = torch.device("cpu")
    expected = _output(tiny, phase, copy.deepcopy(net), batch, device=cpu, dtype="fp32")
    half = None if phase.is_training else HALF_TYPES.get(config.dtype)
    net = place_net(net, device=device, half=half, channels_last=config.channels_last)
    if config.compile:
        net = torch.compile(net, mode=config.compile_mode)  # type: ignore[assignment]
    ready = move(batch, device=device, half=half, channels_last=config.channels_last)
    actual = _output(tiny, phase, net, ready, device=device, dtype=config.dtype)
    return compare(actual, expected, tolerance_frac=TOLERANCE_FRAC[config.dtype])


def _output(
    tiny: Workload, phase: Phase, net: nn.Module, batch: Any, *, device: torch.device, dtype: Dtype
) -> torch.Tensor:
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
