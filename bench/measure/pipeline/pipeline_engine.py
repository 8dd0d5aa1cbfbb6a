"""A pipeline-parallel training step, simulated from stages that were measured on this one device.

Each step of the engine is one micro-batch through all stages, timed stage by stage, and one
optimizer step. After the window, passes that followed one another become the micro-batches of
simulated steps on all devices: the row is of mode `simulated`, and its step times are those. Memory
and energy of the passes are those of one device that holds the whole net, not of a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from bench.core.nouns import Layout
from bench.core.statistics import median
from bench.emulate.pipeline.pipeline import PipelineStep, simulate_step
from bench.emulate.pipeline.schedules import check_pipeline, num_stages
from bench.emulate.replay.simulate import Bound
from bench.hardware.costs.cost import CostModel
from bench.measure.engine.steps import InferStep, TrainStep
from bench.measure.engine.torch_engine import TorchEngine
from bench.measure.messages import TrialRequest
from bench.measure.pipeline.staged_step import StageClock, StagedStep, StageFacts, stages_of
from bench.measure.timing.clock import HostClock
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
            clock=StageClock(self.adapter, clock=HostClock()),
            is_compiled=config.compile,
        )
        return self.staged

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
    every: dict[Bound, list[PipelineStep]] = {"seconds": [], "low_s": [], "high_s": []}
    for start in starts:
        taken_s = [passes_s[(start + index) % len(passes_s)] for index in range(layout.grad_accum)]
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
    # All micro-batches of all replicas; what was waited for the loader is not simulated.
    times = layout.grad_accum * layout.data
    counts = [replace(measured.counts[start], data_wait_s=0.0).times(times) for start in starts]
    changed: dict[str, Any] = {"step_s": step_s, "counts": counts, "host_bound_frac": None}
    window = replace(measured, start_s=0.0, end_s=sum(step_s), **changed)
    return window, _columns(every["seconds"], low=every["low_s"], high=every["high_s"])


def _starts(num_passes: int, *, layout: Layout) -> list[int]:
    """Return the pass that each simulated step begins with."""
    # Forward and backward of each stage, with and without link, at three points of the band.
    tasks = 2 * 2 * 3 * num_stages(layout) * layout.grad_accum
    most = min(MOST_STEPS_SIMULATED, max(FEWEST_STEPS_SIMULATED, MOST_TASKS_SIMULATED // tasks))
    apart = num_passes // layout.grad_accum
    count = min(max(apart, FEWEST_STEPS_SIMULATED), most, num_passes)
    return [index * num_passes // count for index in range(count)]


def _columns(
    steps: Sequence[PipelineStep], *, low: Sequence[PipelineStep], high: Sequence[PipelineStep]
) -> Row:
    """Columns of communication: medians over the simulated steps."""
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
