"""What the traced steps show of communication: columns of emulated, throttled, simulated rows.

Each traced step is replayed by the event simulation: with the prices it ran with, which must agree
with what was measured; with both ends of the link's error band; and without communication. Where
nothing is modelled (mode `real`) nothing of this can be separated from compute, and stays blank.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.nouns import Layout
from bench.core.statistics import median
from bench.emulate.replay.recording import StepNotes, StepTrace
from bench.emulate.replay.simulate import Bound, Prices, replay, straggler_step_s
from bench.results.schema import Row

AGREEMENT_FRAC = 0.03
"""Emulated and simulated steps over one trace may differ by so much."""
_BOUNDS: tuple[Bound, ...] = ("seconds", "low_s", "high_s")
MOST_TRACES = 400
"""Traced steps that are kept; beyond it every second one is let go, then every fourth, ..."""


class Traces:
    """Traced steps of a window, evenly thinned, with their place among all steps.

    `period` is the number of steps after which communication repeats itself.
    """

    def __init__(self, *, period: int = 1, most: int = MOST_TRACES) -> None:
        self._period = period
        self._most = most
        self._stride = 1
        self.num_seen = 0
        self.kept: list[tuple[int, StepNotes]] = []

    def add(self, notes: StepNotes) -> None:
        """Keep a step's notes, or not."""
        if self._is_due(self.num_seen):
            self.kept.append((self.num_seen, notes))
            if len(self.kept) > max(self._most, 4 * self._period):
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

    @property
    def steps(self) -> list[StepTrace]:
        """The traces kept, in order."""
        return [notes.trace for _, notes in self.kept]

    @property
    def places(self) -> list[int]:
        """Numbers of the steps kept, from 0."""
        return [number for number, _ in self.kept]


def communication_columns(
    traces: Sequence[StepTrace],
    *,
    layout: Layout,
    model: Prices,
    period: int = 1,
    waits_hide: bool = True,
) -> tuple[Row, list[str], list[float]]:
    """Return the columns, the reason codes that follow and the replayed steps in seconds.

    Medians over the traced steps; means where only one step in `period` communicates. `waits_hide`
    is for simulated rows, as in `replay`: what was emulated is replayed as it was.
    """
    if not traces:
        return {}, [], []
    is_free = layout.mode == "simulated"
    replays, low_s, high_s = (
        [
            replay(
                trace,
                model=model,
                bound=bound,
                is_free=is_free,
                waits_hide=waits_hide or not is_free,
            )
            for trace in traces
        ]
        for bound in _BOUNDS
    )
    average = median if period == 1 else _mean

    def average_ms(values_s: list[float]) -> float:
        return average(values_s) * 1e3

    straggler_s = straggler_step_s(replays, num_ranks=layout.devices)
    row: Row = {
        "comm_ops": round(average([len(trace.collectives) for trace in traces])),
        "comm_bytes": round(
            average([sum(one.num_bytes for one in trace.collectives) for trace in traces])
        ),
        "link_method": _methods(traces, model=model),
        "comm_total_ms": average_ms([one.comm_total_s for one in replays]),
        "comm_low_ms": average_ms([one.comm_total_s for one in low_s]),
        "comm_high_ms": average_ms([one.comm_total_s for one in high_s]),
        "comm_exposed_ms": average_ms([one.comm_exposed_s for one in replays]),
        "compute_step_ms": average_ms([one.compute_s for one in replays]),
        "step_low_ms": average_ms([one.step_s for one in low_s]),
        "step_high_ms": average_ms([one.step_s for one in high_s]),
        "straggler_step_ms": straggler_s * 1e3,
    }
    step_s = [one.step_s for one in replays]
    if is_free:
        return row, [], step_s
    agreement, reasons = _agreement(traces, step_s)
    return row | agreement, reasons if layout.mode == "emulated" else [], step_s


def _agreement(traces: Sequence[StepTrace], step_s: Sequence[float]) -> tuple[Row, list[str]]:
    """Compare the simulation with what was measured over the same steps."""
    simulated_s = _mean(step_s)
    measured_s = _mean([trace.duration_s for trace in traces])
    error_frac = simulated_s / measured_s - 1
    row: Row = {
        "simulated_step_ms": simulated_s * 1e3,
        "simulated_error_frac": error_frac,
    }
    return row, ["simulation_disagrees"] if abs(error_frac) > AGREEMENT_FRAC else []


def widened(row: Row) -> Row:
    """Return the bracket's upper end with contention counted in: slow link, slowed compute."""
    high, simulated = row.get("step_high_ms"), row.get("simulated_step_ms")
    contended_ms = row.get("contended_step_ms")
    if not (isinstance(high, float) and isinstance(simulated, float)):
        return row
    if not isinstance(contended_ms, float):
        return row
    slowed_ms = contended_ms + max(0.0, high - simulated)
    return row | {"step_high_ms": max(high, slowed_ms)}


def _methods(traces: Sequence[StepTrace], *, model: Prices) -> str:
    kinds = {(one.op, one.num_bytes, one.group) for one in traces[-1].collectives}
    methods = {model.cost(op, num_bytes=size, group=group).method for op, size, group in kinds}
    return "+".join(sorted(methods))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
