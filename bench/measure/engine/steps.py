"""One step of a phase: a training step with its optimizer, or one use of the net."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.core.nouns import Dtype
from bench.measure.engine.precision import autocast
from bench.parallel.laid_out import LaidOut
from bench.workload import Phase, Workload


class TrainStep:
    """Forward, backward, clipping, optimizer step, schedule; keeps the first and the last loss.

    One call is one optimizer step on one or more micro-batches, whose gradients are averaged.
    """

    def __init__(
        self, workload: Workload, net: nn.Module | LaidOut, *, device_type: str, dtype: Dtype
    ) -> None:
        self._workload = workload
        self._laid_out = net if isinstance(net, LaidOut) else LaidOut(net)
        self._device_type = device_type
        self._dtype = dtype
        module = self._laid_out.module
        self._optimizer = fused(workload.optimizer(module))
        self.optimizer_label = label_of(self._optimizer)
        self._laid_out.adopt(self._optimizer)
        self._schedule = workload.schedule(self._optimizer)
        # fp16's smallest normal number is 6e-5: unscaled gradients vanish.
        self._scaler = _gradient_scaler(self._laid_out) if dtype == "fp16" else None
        self.first_loss: torch.Tensor | None = None
        self.last_loss: torch.Tensor | None = None

    def __call__(self, *micro_batches: Any) -> None:
        """Queue one optimizer step on the micro-batches."""
        self._optimizer.zero_grad(set_to_none=True)
        losses = [
            self._backward(batch, index == len(micro_batches) - 1, share=1 / len(micro_batches))
            for index, batch in enumerate(micro_batches)
        ]
        self._update()
        self.last_loss = losses[0] if len(losses) == 1 else sum(losses[1:], losses[0])
        if self.first_loss is None:
            # A CUDA graph may write over what it returned a step ago.
            self.first_loss = self.last_loss.clone()

    def _backward(self, batch: Any, is_last: bool, *, share: float) -> torch.Tensor:
        with self._laid_out.sync(is_last):
            with autocast(self._device_type, self._dtype):
                loss = self._laid_out.local_loss(self._workload.loss(self._laid_out.net, batch))
            if share != 1:
                loss = loss * share
            scaled = loss if self._scaler is None else self._scaler.scale(loss)
            scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _update(self) -> None:
        if self._workload.max_grad_norm is not None:
            if self._scaler is not None:
                self._scaler.unscale_(self._optimizer)
            self._laid_out.clip(self._workload.max_grad_norm)
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        if self._schedule is not None:
            self._schedule.step()
        self._laid_out.after_step()


def fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return Adam or AdamW whose update is one kernel, where an accelerator has that kernel.

    Torch's own choice writes several temporaries of the net's size. What the author chose stays;
    so does the CPU's loop, and a mixture of cut and whole tensors, which the kernel does not take.
    """
    groups = optimizer.param_groups
    parameters = [one for group in groups for one in group["params"]]
    kind, device = type(optimizer), parameters[0].device
    is_chosen = any(group.get("fused") or group.get("foreach") for group in groups)
    if kind not in (torch.optim.Adam, torch.optim.AdamW) or device.type == "cpu" or is_chosen:
        return optimizer
    if len({type(one.data) for one in parameters}) > 1 or not _has_fused(kind, device):
        return optimizer
    return kind([{**group, "foreach": None, "fused": True} for group in groups], fused=True)


def _has_fused(kind: Any, device: torch.device) -> bool:
    """Whether one fused update runs; some backends claim the kernel and raise when it is called."""
    one = torch.nn.Parameter(torch.zeros(1, device=device))
    one.grad = torch.zeros_like(one)
    try:
        kind([one], fused=True).step()
    except RuntimeError:
        return False
    return True


def label_of(optimizer: torch.optim.Optimizer) -> str:
    """`AdamW-fused` where one kernel updates everything, else the type's name."""
    is_fused = all(group.get("fused") for group in optimizer.param_groups)
    return type(optimizer).__name__ + ("-fused" if is_fused else "")


def _gradient_scaler(laid_out: LaidOut) -> torch.amp.GradScaler:
    """Return torch's scaler; `NotImplementedError` where the device lacks what it computes with."""
    device = laid_out.parameters[0].device
    if device.type != "mps":  # the scaler avoids float64 there, and nowhere else
        try:
            torch.ones(1, device=device).double()
        except (RuntimeError, TypeError) as error:
            raise NotImplementedError(
                f"torch scales fp16 gradients with float64, which {device} does not have; "
                "use --dtype bf16 or fp32"
            ) from error
    return laid_out.gradient_scaler()


class InferStep:
    """One call of the workload's method for the phase; keeps the last output."""

    optimizer_label = first_loss = last_loss = None

    def __init__(
        self, workload: Workload, phase: Phase, net: nn.Module, *, device_type: str, dtype: Dtype
    ) -> None:
        self._method = getattr(workload, phase.name)
        self._net = net
        self._device_type = device_type
        self._dtype = dtype
        self.last_output: Any = None

    def __call__(self, batch: Any) -> None:
        """Queue one use of the net on a prepared batch."""
        with torch.inference_mode(), autocast(self._device_type, self._dtype):
            self.last_output = self._method(self._net, batch)
