"""One step of a phase: a training step with its optimizer, or one use of the net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.core.nouns import Dtype
from bench.measure.precision import autocast
from bench.workload import Phase, Workload

if TYPE_CHECKING:
    import torch
    from torch import nn


class TrainStep:
    """Forward, backward, clipping, optimizer step, schedule; keeps the first and the last loss."""

    def __init__(
        self, workload: Workload, net: nn.Module, *, device_type: str, dtype: Dtype
    ) -> None:
        self._workload = workload
        self._net = net
        self._device_type = device_type
        self._dtype = dtype
        self._parameters = list(net.parameters())
        self._optimizer = workload.optimizer(net)
        self._schedule = workload.schedule(self._optimizer)
        # fp16's smallest normal number is 6e-5: unscaled gradients vanish.
        self._scaler = _gradient_scaler(self._parameters[0].device) if dtype == "fp16" else None
        self.first_loss: torch.Tensor | None = None
        self.last_loss: torch.Tensor | None = None

    def __call__(self, batch: Any) -> None:
        """Queue one optimizer step on the batch."""
        self._optimizer.zero_grad(set_to_none=True)
        with autocast(self._device_type, self._dtype):
            loss = self._workload.loss(self._net, batch)
        if self._scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            self._clip()
            self._optimizer.step()
        else:
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if self._workload.max_grad_norm is not None:
                self._scaler.unscale_(self._optimizer)
                self._clip()
            self._scaler.step(self._optimizer)
            self._scaler.update()
        if self._schedule is not None:
            self._schedule.step()
        self.last_loss = loss.detach()
        if self.first_loss is None:
            self.first_loss = self.last_loss

    def _clip(self) -> None:
        import torch

        if self._workload.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._workload.max_grad_norm)


def _gradient_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Return torch's scaler; `NotImplementedError` where the device lacks what it computes with."""
    import torch

    if device.type != "mps":  # the scaler avoids float64 there, and nowhere else
        try:
            torch.ones(1, device=device).double()
        except (RuntimeError, TypeError) as error:
            raise NotImplementedError(
                f"torch scales fp16 gradients with float64, which {device} does not have; "
                "use --dtype bf16 or fp32"
            ) from error
    return torch.amp.GradScaler(device.type)


class InferStep:
    """One call of the workload's method for the phase; keeps the last output."""

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
        import torch

        with torch.inference_mode(), autocast(self._device_type, self._dtype):
            self.last_output = self._method(self._net, batch)


def float_tensors(value: Any) -> list[torch.Tensor]:
    """Return the floating-point tensors in nested dicts, lists, tuples and dataclass outputs."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in float_tensors(item)]
    return []
