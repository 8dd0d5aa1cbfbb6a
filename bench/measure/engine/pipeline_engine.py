"""A pipeline-parallel training step, simulated from stages that were measured on this one device.

Each step of the engine is one micro-batch through all stages, timed stage by stage: forward through
every stage, backward through every stage, one optimizer step. That is the arithmetic of the whole
net, cut at the stages; between two nothing is copied, and gradients are written, not added to those
of the micro-batch before. After the window, passes that followed one another become the
micro-batches of simulated steps on all devices: the row is of mode `simulated`, and its step times
are those. Memory and energy of the passes are those of one device that holds the whole net.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import nn

from bench.core.errors import MeasurementError
from bench.core.nouns import Dtype, Layout
from bench.core.statistics import median
from bench.devices.torch.adapter import Adapter, DeviceEvent
from bench.emulate.pipeline import (
    PipelineStage,
    PipelineStep,
    check_pipeline,
    num_stages,
    simulate_step,
)
from bench.emulate.replay import Bound
from bench.hardware.costs.cost import CostModel
from bench.measure.engine.correctness import TOLERANCE_FRAC
from bench.measure.engine.engine import StepCount
from bench.measure.engine.precision import autocast
from bench.measure.engine.steps import InferStep, TrainStep
from bench.measure.engine.torch_engine import TorchEngine
from bench.measure.messages import TrialRequest
from bench.measure.timing.clock import Clock, HostClock
from bench.measure.timing.window import Window, step_clock_of
from bench.parallel.laid_out import LaidOut
from bench.results.schema import Row
from bench.workload import Workload

T = TypeVar("T")
MOST_STEPS_SIMULATED = 400
FEWEST_STEPS_SIMULATED = 20
MOST_TASKS_SIMULATED = 1_000_000
"""A task takes some microseconds; with many stages and micro-batches fewer steps are simulated."""


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
        self._output_bytes: tuple[int, ...] | None = None

    def __call__(self, *micro_batches: Any) -> None:
        """Queue one micro-batch, there is no second, and one optimizer step."""
        (batch,) = micro_batches
        if self.last_loss is None:
            self._check(batch)
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


class PipelineEngine(TorchEngine):
    """A `TorchEngine` whose step is one micro-batch through the stages."""

    def __init__(self, request: TrialRequest, **more: Any) -> None:
        super().__init__(request, **more)
        self._micro_batches = 1
        check_pipeline(self.layout)
        self.workload.check_stages(num_stages(self.layout))

    def _lay_out(self, net: nn.Module) -> None:
        """Nothing is sent while measuring, and the stages are compiled one by one."""
        self.laid_out = LaidOut(net)

    def _make_step(self, net: nn.Module) -> TrainStep | InferStep:
        config = self.config
        self.staged = StagedStep(
            self.workload,
            net,
            device_type=self.device.type,
            dtype=config.dtype,
            num_stages=num_stages(self.layout),
            clock=StageClock(self.adapter, clock=HostClock()),
            is_compiled=config.compile,
        )
        return self.staged

    def untraced_step(self) -> StepCount:
        """Queue one pass, from the wait for its batch on: the first stage's device waits for it."""
        self.staged.clock.mark()
        return super().untraced_step()

    def simulated(self, measured: Window, *, model: CostModel) -> tuple[Window, Row]:
        """Return the window as simulated steps, and the columns of communication.

        `model` is the link's cost model. The returned window goes to `summary.speed_columns`; its
        length is the sum of simulated steps. To be called after the window, device synchronised.
        """
        passes_s = self.staged.clock.passes_s()[-len(measured.counts) :]
        return simulate_window(
            measured,
            passes_s=passes_s,
            facts=self.staged.facts(),
            layout=self.layout,
            model=model,
            clips=self.workload.max_grad_norm is not None,
        )


def simulate_window(
    measured: Window,
    *,
    passes_s: Sequence[Sequence[float]],
    facts: StageFacts,
    layout: Layout,
    model: CostModel,
    clips: bool,
) -> tuple[Window, Row]:
    """Simulate steps whose micro-batches are passes measured one after the other.

    Steps share no pass where there are enough; with fewer passes than that, evenly spaced steps
    overlap, and the last ones go on with the first pass.
    """
    starts = _starts(len(passes_s), layout=layout)
    waits_s = [count.data_wait_s for count in measured.counts]
    every: dict[Bound, list[PipelineStep]] = {"seconds": [], "low_s": [], "high_s": []}
    for start in starts:
        taken_s = _taken(passes_s, start, layout)
        mean_s = [sum(column) / len(taken_s) for column in zip(*taken_s, strict=True)]
        for bound, steps in every.items():
            step = simulate_step(
                stages_of(mean_s, facts=facts),
                passes=[stages_of(one_s, facts=facts) for one_s in taken_s],
                layout=layout,
                model=model,
                bound=bound,
                shared_bytes=facts.shared_bytes,
                clips=clips,
            )
            steps.append(step)
    step_s = [step.step_s for step in every["seconds"]]
    # All micro-batches of all replicas, whose first stages wait for their loaders side by side.
    times = layout.grad_accum * layout.data
    step_waits_s = [sum(_taken(waits_s, start, layout)) for start in starts]
    counts = [
        replace(measured.counts[start], data_wait_s=waited_s).times(times)
        for start, waited_s in zip(starts, step_waits_s, strict=True)
    ]
    changed: dict[str, Any] = {"step_s": step_s, "counts": counts, "host_bound_frac": None}
    window = replace(measured, start_s=0.0, end_s=sum(step_s), **changed)
    return window, _columns(every["seconds"], low=every["low_s"], high=every["high_s"])


def _taken(of_passes: Sequence[T], start: int, layout: Layout) -> list[T]:
    """Return what belongs to the micro-batches of the step that begins with pass `start`."""
    indices = range(start, start + layout.grad_accum)
    return [of_passes[index % len(of_passes)] for index in indices]


def _starts(num_passes: int, *, layout: Layout) -> list[int]:
    # Forward and backward of each stage, with and without link, at three points of the band.
    tasks = 2 * 2 * 3 * num_stages(layout) * layout.grad_accum
    most = min(MOST_STEPS_SIMULATED, max(FEWEST_STEPS_SIMULATED, MOST_TASKS_SIMULATED // tasks))
    apart = num_passes // layout.grad_accum
    count = min(max(apart, FEWEST_STEPS_SIMULATED), most, num_passes)
    return [index * num_passes // count for index in range(count)]


def _columns(
    steps: Sequence[PipelineStep], *, low: Sequence[PipelineStep], high: Sequence[PipelineStep]
) -> Row:
    first = steps[0]  # messages are the same in every step
    return {
        "overlap": "yes: messages between stages; none: gradients over replicas",
        "link_method": "+".join(first.methods) or None,
        "comm_ops": first.comm_ops,
        "comm_bytes": first.comm_bytes,
        "comm_total_ms": first.comm_total_s * 1e3,
        "comm_low_ms": low[0].comm_total_s * 1e3,
        "comm_high_ms": high[0].comm_total_s * 1e3,
        "comm_exposed_ms": median([step.comm_exposed_s for step in steps]) * 1e3,
        "compute_step_ms": median([step.compute_step_s for step in steps]) * 1e3,
        "step_low_ms": median([step.step_s for step in low]) * 1e3,
        "step_high_ms": median([step.step_s for step in high]) * 1e3,
        "bubble_frac": median([step.bubble_frac for step in steps]),
    }
