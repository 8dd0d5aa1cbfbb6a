"""What a trial over several devices adds to its row, and which steps its speed comes from.

In mode `simulated` the measured steps are only compute: the row's steps are replays of them on the
link. Everything else was measured in the window; what comes after it (traced steps on an
accelerator, the contended end of the bracket) never enters the speed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.core.nouns import Layout
from bench.hardware.costs.cost import model_of
from bench.measure.communication.communication import (
    MOST_TRACES,
    communication_columns,
    widened,
)
from bench.measure.communication.fake_trace import fake_trace
from bench.measure.communication.modelled_link import ModelledLink
from bench.measure.engine.engine import StepCount
from bench.measure.timing.window import Window
from bench.results.schema import Row

if TYPE_CHECKING:
    from bench.measure.engine.torch_engine import TorchEngine


def layout_rows(engine: TorchEngine, measured: Window) -> tuple[Window, Row, list[str]]:
    """Return the window that the row's speed comes from, all devices counted; columns; reasons."""
    layout = engine.layout
    if layout.is_single and layout.grad_accum == 1:
        return measured, {}, []
    if layout.strategy == "pp":
        from bench.measure.pipeline.pipeline_engine import PipelineEngine

        assert isinstance(engine, PipelineEngine)
        model = model_of(layout.link)
        return *engine.simulated(measured, model=model), []
    row: Row = {"overlap": engine.laid_out.overlap or None}
    reasons: list[str] = []
    if engine.link is not None:
        measured, linked, reasons = _linked(engine, engine.link, measured)
        row |= linked
    return of_all_replicas(measured, layout=layout), row, reasons


def _linked(
    engine: TorchEngine, link: ModelledLink, measured: Window
) -> tuple[Window, Row, list[str]]:
    layout = engine.layout
    # On an accelerator: traced after the window, where that cannot disturb it.
    link.trace_afterwards(engine.untraced_step)
    link.traces.end()
    row, reasons, step_s = communication_columns(
        link.traces.steps,
        layout=layout,
        model=link.model,
        period=link.period_steps,
        waits_hide=link.waits_hide,
    )
    if layout.mode == "simulated":
        first = len(measured.counts) - link.traces.num_seen
        counts = [measured.counts[first + index] for index in link.traces.places]
        return _replayed(measured, step_s=step_s, counts=counts), row, reasons
    contended = link.contended_columns(
        engine.untraced_step, synchronize=engine.synchronize, step_s=measured.step_s
    )
    return measured, widened(row | contended), reasons


def _replayed(measured: Window, *, step_s: list[float], counts: list[StepCount]) -> Window:
    """Return the window whose steps are the traced ones as they would be on the link."""
    return replace(measured, step_s=step_s, counts=counts, start_s=0.0, end_s=sum(step_s))


def fake_layout_rows(
    measured: Window, *, layout: Layout, num_parameters: int
) -> tuple[Window, Row]:
    """Return the same of the fake device, whose messages follow from the number of parameters."""
    if not layout.link:
        return of_all_replicas(measured, layout=layout), {}
    model = model_of(layout.link)
    traces = [
        fake_trace(step_s, layout=layout, num_parameters=num_parameters, model=model)
        for step_s in measured.step_s[-MOST_TRACES:]
    ]
    simulated = replace(layout, mode="simulated")
    row, _, step_s = communication_columns(traces, layout=simulated, model=model)
    replayed = _replayed(measured, step_s=step_s, counts=measured.counts[-len(step_s) :])
    overlap = "yes" if layout.strategy == "ddp" else "none: waited for at once"
    return of_all_replicas(replayed, layout=layout), row | {"overlap": overlap}


def of_all_replicas(measured: Window, *, layout: Layout) -> Window:
    """Count what the data replicas processed together: each does what this one did."""
    if layout.data == 1:
        return measured
    counts = [count.times(layout.data) for count in measured.counts]
    return replace(measured, counts=counts)
