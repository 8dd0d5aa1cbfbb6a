"""What the traced steps show of communication: columns of emulated, throttled, simulated rows.

Each traced step is replayed by the event simulation: with the prices it ran with, which must agree
with what was measured; with both ends of the link's error band; and without communication. Where
nothing is modelled (mode `real`) nothing of this can be separated from compute, and stays blank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import get_args

from bench.core.errors import UsageError
from bench.core.nouns import Layout
from bench.core.statistics import median
from bench.emulate.replay import (
    Bound,
    Collective,
    Mark,
    Replay,
    StepNotes,
    StepTrace,
    replay,
    straggler_step_s,
)
from bench.hardware.costs.collectives import Group, Op
from bench.hardware.costs.cost import CostModel
from bench.results.schema import Row

AGREEMENT_FRAC = 0.03
"""Emulated and simulated steps over one trace may differ by so much."""
FSDP_UNITS = 8
GRADIENT_BYTES = 4
MOST_TRACES = 400
"""Traced steps that are kept; beyond it every second one is let go, then every fourth, ..."""


class Traces:
    """Traced steps of a window, evenly thinned, with their place among all steps.

    `period` is the number of steps after which communication repeats itself.
    """

    def __init__(self, *, period: int = 1) -> None:
        self._period = period
        self._stride = 1
        self.num_seen = 0
        self.kept: list[tuple[int, StepNotes]] = []

    def add(self, notes: StepNotes) -> None:
        """Keep a step's notes, or not."""
        if self._is_due(self.num_seen):
            self.kept.append((self.num_seen, notes))
            if len(self.kept) > max(MOST_TRACES, 4 * self._period):
                self._stride *= 2
                self.kept = [one for one in self.kept if self._is_due(one[0])]
        self.num_seen += 1

    def _is_due(self, number: int) -> bool:
        # Whole periods: where only every H-th step communicates, a stride would see all or none.
        return number // self._period % self._stride == 0

    def end(self) -> None:
        """Let go of a last period that is not whole, unless it is all there is."""
        whole = self.num_seen // self._period * self._period
        self.kept = [one for one in self.kept if one[0] < whole] or self.kept


def average_of(layout: Layout) -> Callable[[Sequence[float]], float]:
    """Return what is the step of a row: the mean where a mitigation may send nothing in some."""
    return fmean if layout.mitigate else median


def communication_columns(
    traces: Sequence[StepTrace],
    *,
    layout: Layout,
    model: CostModel,
    ran_s: Sequence[float] = (),
    waits_hide: bool = True,
) -> tuple[Row, list[str], list[float]]:
    """Return the columns, the reason codes that follow and the replayed steps in seconds.

    `ran_s` are the steps of a window that ran on the link: the bracket lies around them, its ends
    as far away as their replays are from that of the model. `waits_hide` is for simulated rows, as
    in `replay`: what was emulated is replayed as it was.
    """
    is_free = layout.mode == "simulated"
    hides = waits_hide or not is_free
    traces = [_regrouped(trace, group=model.group_of(range(layout.devices))) for trace in traces]
    replays, low, high = (
        [
            replay(trace, model=model, bound=bound, is_free=is_free, waits_hide=hides)
            for trace in traces
        ]
        for bound in get_args(Bound)
    )
    average = average_of(layout)

    def average_ms(replays: Sequence[Replay], figure: str) -> float:
        return average([getattr(one, figure) for one in replays]) * 1e3

    sent_bytes = [sum(one.num_bytes for one in trace.collectives) for trace in traces]
    step_s = [one.step_s for one in replays]
    off_ms = (average(ran_s or step_s) - average(step_s)) * 1e3
    row: Row = {
        "comm_ops": round(average([len(trace.collectives) for trace in traces])),
        "comm_bytes": round(average(sent_bytes)),
        "link_method": _methods(traces[-1], model=model),
        "comm_total_ms": average_ms(replays, "comm_total_s"),
        "comm_low_ms": average_ms(low, "comm_total_s"),
        "comm_high_ms": average_ms(high, "comm_total_s"),
        "comm_exposed_ms": average_ms(replays, "comm_exposed_s"),
        "compute_step_ms": average_ms(replays, "compute_s"),
        "step_low_ms": average_ms(low, "step_s") + off_ms,
        "step_high_ms": average_ms(high, "step_s") + off_ms,
        "straggler_step_ms": straggler_step_s(replays, num_ranks=layout.devices) * 1e3,
    }
    if is_free:
        return row, [], step_s
    # The simulation against what was measured over the same steps.
    error_frac = fmean(step_s) / fmean(trace.duration_s for trace in traces) - 1
    row |= {"simulated_step_ms": fmean(step_s) * 1e3, "simulated_error_frac": error_frac}
    disagrees = layout.mode == "emulated" and abs(error_frac) > AGREEMENT_FRAC
    return row, ["simulation_disagrees"] if disagrees else [], step_s


def _regrouped(trace: StepTrace, *, group: Group) -> StepTrace:
    """Return the trace whose collectives of all ranks lie on another model's nodes."""
    moved = (
        replace(one, group=group) if one.group.num_ranks == group.num_ranks else one
        for one in trace.collectives
    )
    return replace(trace, collectives=tuple(moved))


def _methods(trace: StepTrace, *, model: CostModel) -> str:
    kinds = {(one.op, one.num_bytes, one.group) for one in trace.collectives}
    methods = {model.cost(op, num_bytes=size, group=group).method for op, size, group in kinds}
    return "+".join(sorted(methods))


def fake_trace(
    step_s: float, *, layout: Layout, num_parameters: int, model: CostModel
) -> StepTrace:
    """Return the trace of a step on the fake device that computes for `step_s`, on a free link.

    Gradients of a backward pass come evenly over the last two thirds of a step, since backward
    takes twice the time of forward (arXiv 2104.04473, section 2), and go out in buckets. FSDP
    gathers eight units before their use, twice, and scatters their gradients, and waits each time,
    as on a CPU. Raises UsageError for what only a real net knows: tensor-parallel and pipeline
    messages.
    """
    num_bytes, each_bytes = GRADIENT_BYTES * num_parameters, layout.bucket_bytes
    sent: list[tuple[Op, int]]
    if layout.strategy == "ddp":
        starts = range(0, num_bytes, each_bytes)
        sent = [("all_reduce", min(each_bytes, num_bytes - start)) for start in starts]
        times_s = [step_s * (1 + 2 * (index + 1) / len(sent)) / 3 for index in range(len(sent))]
    elif layout.strategy == "fsdp":
        each_bytes = num_bytes // FSDP_UNITS
        sent = [("all_gather", each_bytes) for _ in range(2 * FSDP_UNITS)]
        sent += [("reduce_scatter", each_bytes) for _ in range(FSDP_UNITS)]
        times_s = [step_s * (index + 1) / (len(sent) + 1) for index in range(len(sent))]
    else:
        raise UsageError(
            f"the fake device knows the messages of ddp and fsdp, not of {layout.strategy}; "
            "use --device cpu"
        )
    group = model.group_of(range(layout.devices))
    collectives, marks = [], []
    for index, ((op, size), at_s) in enumerate(zip(sent, times_s, strict=True)):
        at = {"issued_s": at_s, "start_s": at_s, "end_s": at_s}
        collectives.append(Collective(op=op, num_bytes=size, group=group, modelled_s=0.0, **at))
        marks.append(Mark(kind="issue", collective=index, start_s=at_s, end_s=at_s))
        wait_s = step_s if layout.strategy == "ddp" else at_s
        marks.append(Mark(kind="wait", collective=index, start_s=wait_s, end_s=wait_s))
    marks.sort(key=lambda mark: mark.start_s)
    return StepTrace(duration_s=step_s, collectives=tuple(collectives), marks=tuple(marks))
