"""A pipeline-parallel training step, simulated from stages that were measured on this one device.

Each step of the engine is one micro-batch through all stages, timed stage by stage. After the
window, passes that followed one another become the micro-batches of simulated steps on all devices:
the row is of mode `simulated`, and its step times are those. Memory and energy of the passes are
those of one device that holds the whole net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, get_args

from torch import nn

from bench.core.nouns import Layout
from bench.core.statistics import median
from bench.emulate.pipeline import (
    PipelineStage,
    PipelineStep,
    check_pipeline,
    num_stages,
    simulate_step,
)
from bench.emulate.replay import Bound
from bench.hardware.costs.cost import CostModel
from bench.measure.engine.engine import StepCount
from bench.measure.engine.staged_step import StageClock, StagedStep, StageFacts
from bench.measure.engine.steps import InferStep, TrainStep
from bench.measure.engine.torch_engine import TorchEngine
from bench.measure.messages import TrialRequest
from bench.measure.timing.window import Window
from bench.parallel.laid_out import LaidOut
from bench.results.schema import Row

MOST_STEPS_SIMULATED = 400
FEWEST_STEPS_SIMULATED = 20
MOST_TASKS_SIMULATED = 1_000_000
"""A task takes some microseconds; with many stages and micro-batches fewer steps are simulated."""


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
            clock=StageClock(self.adapter, clock=self.clock),
            is_compiled=config.compile,
        )
        return self.staged

    def untraced_step(self) -> StepCount:
        """Queue one pass, from the wait for its batch on: the first stage's device waits for it."""
        self.staged.clock.mark()
        return super().untraced_step()

    def simulated(self, measured: Window, *, model: CostModel) -> tuple[Window, Row]:
        """Return the window as simulated steps on the link, and the columns of communication.

        To be called after the window, device synchronised.
        """
        return simulate_window(
            measured,
            passes_s=self.staged.clock.passes_s()[-len(measured.counts) :],
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
    taken = _passes_of_steps(len(passes_s), layout=layout)
    passes = [stages_of(one_s, facts=facts) for one_s in passes_s]

    def simulated(numbers: list[int], bound: Bound) -> PipelineStep:
        columns = zip(*(passes_s[number] for number in numbers), strict=True)
        return simulate_step(
            stages_of([fmean(column) for column in columns], facts=facts),
            passes=[passes[number] for number in numbers],
            layout=layout,
            model=model,
            bound=bound,
            shared_bytes=facts.shared_bytes,
            clips=clips,
        )

    steps, low, high = ([simulated(one, bound) for one in taken] for bound in get_args(Bound))
    # All micro-batches of all replicas, whose first stages wait for their loaders side by side.
    times = layout.grad_accum * layout.data
    counts = []
    for numbers in taken:
        waited_s = sum(measured.counts[number].data_wait_s for number in numbers)
        counts.append(replace(measured.counts[numbers[0]], data_wait_s=waited_s).times(times))
    step_s = [step.step_s for step in steps]
    window = replace(measured, start_s=0.0, end_s=sum(step_s), step_s=step_s, counts=counts)
    window.host_bound_frac = None
    return window, _columns(steps, low=low, high=high)


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


def _passes_of_steps(num_passes: int, *, layout: Layout) -> list[list[int]]:
    """Return which passes are the micro-batches of each simulated step."""
    # Forward and backward of each stage, with and without link, at three points of the band.
    tasks = 2 * 2 * 3 * num_stages(layout) * layout.grad_accum
    most = min(MOST_STEPS_SIMULATED, max(FEWEST_STEPS_SIMULATED, MOST_TASKS_SIMULATED // tasks))
    apart = num_passes // layout.grad_accum
    count = min(max(apart, FEWEST_STEPS_SIMULATED), most, num_passes)
    starts = (index * num_passes // count for index in range(count))
    within = range(layout.grad_accum)
    return [[(start + number) % num_passes for number in within] for start in starts]


def _columns(
    steps: Sequence[PipelineStep], *, low: Sequence[PipelineStep], high: Sequence[PipelineStep]
) -> Row:
    return {
        "overlap": "yes: messages between stages; none: gradients over replicas",
        "link_method": "+".join(steps[0].methods) or None,
        # The path that ends a step may pass more messages in one step than in another.
        "comm_ops": round(median([step.comm_ops for step in steps])),
        "comm_bytes": round(median([step.comm_bytes for step in steps])),
        "comm_total_ms": median([step.comm_total_s for step in steps]) * 1e3,
        "comm_low_ms": median([step.comm_total_s for step in low]) * 1e3,
        "comm_high_ms": median([step.comm_total_s for step in high]) * 1e3,
        "comm_exposed_ms": median([step.comm_exposed_s for step in steps]) * 1e3,
        "compute_step_ms": median([step.compute_step_s for step in steps]) * 1e3,
        "step_low_ms": median([step.step_s for step in low]) * 1e3,
        "step_high_ms": median([step.step_s for step in high]) * 1e3,
        "bubble_frac": median([step.bubble_frac for step in steps]),
    }
