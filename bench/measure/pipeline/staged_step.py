"""One micro-batch through the stages of a pipeline, all on one device, each timed by itself.

Forward through every stage, backward through every stage, one optimizer step: the arithmetic of
the whole net, cut at the stages. Between two stages nothing is copied; messages are simulated.
Differs from a real micro-batch: gradients are written, not added to those of the one before.
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
from bench.devices.torch.adapter import Adapter, DeviceEvent
from bench.emulate.pipeline.pipeline import PipelineStage
from bench.measure.engine.correctness import TOLERANCE_FRAC
from bench.measure.engine.precision import autocast
from bench.measure.engine.steps import TrainStep
from bench.measure.timing.clock import Clock
from bench.measure.timing.window import step_clock_of
from bench.workload import Workload


class StageClock:
    """Boundaries of passes: device events, or the host clock where nothing is queued.

    A device that runs behind the host but has no events is synchronised at each boundary.
    """

    def __init__(self, adapter: Adapter, *, clock: Clock) -> None:
        self._adapter = adapter
        self._clock = clock
        self._has_events = step_clock_of(adapter) == "event"
        self._running_s: list[float] = []
        self._running: list[DeviceEvent] = []
        self._queued: deque[list[DeviceEvent]] = deque()
        self._passes_s: list[list[float]] = []

    def mark(self) -> None:
        """Note a boundary of the running pass; where there are events the host does not wait."""
        if self._has_events:
            event = self._adapter.make_event()
            assert event is not None, "the device had events a moment ago"
            event.record()
            self._running.append(event)
            return
        if self._adapter.is_asynchronous:
            self._adapter.synchronize()
        self._running_s.append(self._clock.now_s())

    def end_pass(self) -> None:
        """Close the pass at its latest boundary, and read those that the device has finished."""
        if self._has_events:
            self._queued.append(self._running)
            self._running = []
            self.passes_s()
        else:
            self._passes_s.append([b - a for a, b in pairwise(self._running_s)])
            self._running_s = []

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
        self._output_bytes: tuple[int, ...] | None = None

    def __call__(self, *micro_batches: Any) -> None:
        """Queue one micro-batch, there is no second, and one optimizer step."""
        (batch,) = micro_batches
        if self.last_loss is None:
            self._check(batch)
        self.clock.mark()
        outputs = self._there_and_back(batch)
        if self._output_bytes is None:
            self._output_bytes = tuple(o.numel() * o.element_size() for o in outputs[:-1])
        self._update()
        self._optimizer.zero_grad(set_to_none=True)
        self.clock.mark()
        self.clock.end_pass()
        self.last_loss = outputs[-1].detach()
        if self.first_loss is None:
            self.first_loss = self.last_loss

    def _there_and_back(self, batch: Any) -> list[torch.Tensor]:
        """Go through every stage, forward and backward; return what each returned."""
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
        """Raise `MeasurementError` unless the stages make the net's loss."""
        kept_state = torch.random.fork_rng(devices=[])
        with torch.no_grad(), kept_state, autocast(self._device_type, self._dtype):
            torch.manual_seed(0)  # random masks must be the same ones
            whole = float(self._workload.loss(self._whole, batch))
            torch.manual_seed(0)
            value: Any = None
            for stage in self._parts:
                value = stage(value, batch)
            staged = float(value)
        if not abs(staged - whole) <= TOLERANCE_FRAC[self._dtype] * abs(whole):
            raise MeasurementError(
                f"the pipeline stages' loss {staged:.6g} is not the net's {whole:.6g}; "
                "correct the workload's pipeline_stages"
            )

    def facts(self) -> StageFacts:
        """Return what the simulation needs beside times; only after a pass."""
        assert self._output_bytes is not None, "asked before the first pass"
        by_stage = [list(stage.parameters()) for stage in self._parts]
        total = sum(p.numel() for p in self._whole.parameters())
        counts = Counter(p for own in by_stage for p in own)
        return StageFacts(
            output_bytes=self._output_bytes,
            gradient_bytes=tuple(_num_bytes(own) for own in by_stage),
            parameter_fracs=tuple(sum(p.numel() for p in own) / total for own in by_stage),
            shared_bytes=_num_bytes(p for p, count in counts.items() if count > 1),
        )


def stages_of(intervals_s: Sequence[float], *, facts: StageFacts) -> list[PipelineStage]:
    """Return the stages as one pass measured them; `intervals_s` as `StagedStep` has them."""
    count = len(facts.gradient_bytes)
    forwards_s, backwards_s = intervals_s[:count], intervals_s[count : 2 * count][::-1]
    return [
        PipelineStage(
            forward_s=forwards_s[index],
            backward_s=backwards_s[index],
            optimizer_s=intervals_s[-1] * facts.parameter_fracs[index],
            output_bytes=facts.output_bytes[index] if index < count - 1 else 0,
            gradient_bytes=facts.gradient_bytes[index],
        )
        for index in range(count)
    ]


def _num_bytes(parameters: Any) -> int:
    return sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)


def _compiled(stages: Sequence[nn.Module]) -> list[Any]:
    """Compile each stage; they share their code, and torch counts graphs by code."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * len(stages))
    return [torch.compile(stage) for stage in stages]
