"""A training step cut into stages, each timed by itself on this one device.

One step is one micro-batch: forward through every stage, backward through every stage, one
optimizer step. That is the arithmetic of the whole net, cut at the stages; between two nothing is
copied, and gradients are written, not added to those of the micro-batch before.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from bench.core.errors import MeasurementError
from bench.core.nouns import Dtype
from bench.devices.torch.adapter import Adapter
from bench.measure.engine.correctness import TOLERANCE_FRAC
from bench.measure.engine.precision import autocast
from bench.measure.engine.steps import TrainStep
from bench.measure.timing.clock import Clock
from bench.measure.timing.window import Boundaries
from bench.workload import Workload


class StageClock(Boundaries):
    """Boundaries of passes through the stages, on the clock that steps have."""

    def __init__(self, adapter: Adapter, *, clock: Clock) -> None:
        super().__init__(adapter, clock=clock)
        self._running: list[Any] = []
        self._queued: deque[list[Any]] = deque()
        self._passes_s: list[list[float]] = []

    def mark(self) -> None:
        """Note a boundary of the running pass; where there are events the host does not wait."""
        self._running.append(self.boundary())

    def end_pass(self) -> None:
        """Close the pass at its latest boundary, and read those that the device has finished."""
        self._queued.append(self._running)
        self._running = []
        self.passes_s()

    def passes_s(self) -> list[list[float]]:
        """Return the intervals in seconds of every pass that the device has finished, in order."""
        # An event that has been read is let go: many thousands would weigh on the driver.
        while self._queued and self._queued[0][-1].query():
            events = self._queued.popleft()
            self._passes_s.append([a.elapsed_ms(b) / 1e3 for a, b in pairwise(events)])
        return self._passes_s


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """What does not change from pass to pass; lists are by stage."""

    output_bytes: tuple[int, ...]
    """Activation handed on by each stage but the last, as it was on this device and dtype."""
    gradient_bytes: tuple[int, ...]
    parameter_fracs: tuple[float, ...]
    """Share of the net's parameters, by which the optimizer step is divided."""
    shared_bytes: int
    """Gradients of parameters that more than one stage has (tied embeddings)."""


class StagedStep(TrainStep):
    """A training step over stages; `clock` has the intervals of every pass.

    A pass with S stages has 2 S + 1 intervals: forwards in order, backwards in reverse, optimizer.
    It begins with a mark of the caller's, before it waits for the batch: so does the first stage.
    """

    def __init__(
        self,
        workload: Workload,
        net: nn.Module,
        *,
        device_type: str,
        dtype: Dtype,
        num_stages: int,
        clock: StageClock,
        is_compiled: bool = False,
    ) -> None:
        super().__init__(workload, net, device_type=device_type, dtype=dtype)
        self.clock = clock
        self._whole = net
        stages = workload.pipeline_stages(net, num_stages=num_stages)
        if len(stages) != num_stages:
            raise ValueError(f"pipeline_stages returned {len(stages)} stages, not {num_stages}")
        self._parts = list(stages)
        self._stages = _compiled(stages) if is_compiled else list(stages)

    def __call__(self, *micro_batches: Any) -> None:
        """Queue one micro-batch, there is no second, and one optimizer step."""
        (batch,) = micro_batches
        if self.last_loss is None:
            self._check(batch)
        outputs = self._there_and_back(batch)
        self._update()
        self._optimizer.zero_grad(set_to_none=True)
        self.clock.mark()
        self.clock.end_pass()
        self.last_loss = outputs[-1].detach()
        self.first_loss = self.last_loss if self.first_loss is None else self.first_loss

    def _there_and_back(self, batch: Any) -> list[torch.Tensor]:
        inputs: list[Any] = []
        outputs: list[torch.Tensor] = []
        for stage in self._stages:
            inputs.append(outputs[-1].detach().requires_grad_() if outputs else None)
            # One context for each stage, so that each casts its own weights.
            with autocast(self._device_type, self._dtype):
                outputs.append(stage(inputs[-1], batch))
            self.clock.mark()
        loss = outputs[-1]
        torch.autograd.backward(loss if self._scaler is None else self._scaler.scale(loss))
        self.clock.mark()
        for index in reversed(range(1, len(inputs))):
            torch.autograd.backward(outputs[index - 1], inputs[index].grad)
            self.clock.mark()
        return outputs

    def _check(self, batch: Any) -> None:
        """Hold that the stages make the net's loss, and note what they hand on."""
        kept_state = torch.random.fork_rng(devices=[])
        with torch.no_grad(), kept_state, autocast(self._device_type, self._dtype):
            torch.manual_seed(0)  # random masks must be the same ones
            whole = float(self._workload.loss(self._whole, batch))
            torch.manual_seed(0)
            outputs: list[Any] = [None]
            for stage in self._parts:
                outputs.append(stage(outputs[-1], batch))
            staged = float(outputs[-1])
        if not abs(staged - whole) <= TOLERANCE_FRAC[self._dtype] * abs(whole):
            raise MeasurementError(
                f"the pipeline stages' loss {staged:.6g} is not the net's {whole:.6g}; "
                "correct the workload's pipeline_stages"
            )
        self._output_bytes = tuple(o.numel() * o.element_size() for o in outputs[1:-1])

    def facts(self) -> StageFacts:
        """Return what the simulation needs beside times; only after a pass."""
        by_stage = [list(stage.parameters()) for stage in self._parts]
        total = sum(p.numel() for p in self._whole.parameters())
        counts = Counter(p for own in by_stage for p in own)
        return StageFacts(
            output_bytes=self._output_bytes,
            gradient_bytes=tuple(_num_bytes(own) for own in by_stage),
            parameter_fracs=tuple(sum(p.numel() for p in own) / total for own in by_stage),
            shared_bytes=_num_bytes(p for p, count in counts.items() if count > 1),
        )


def _num_bytes(parameters: Any) -> int:
    return sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)


def _compiled(stages: Sequence[nn.Module]) -> list[Any]:
    """Compile each stage; they share their code, and torch counts graphs by code."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * len(stages))
    return [torch.compile(stage) for stage in stages]
