"""The modelled link of a trial: opened before the net is laid out, traced beside the steps.

On a synchronous device (a CPU) every step of the window is traced, which takes a list append for
each collective. On an accelerator tracing means waiting for the device, so the window runs
untraced and some steps after it are traced; only a simulated row, whose steps are replays, traces
its window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.core.errors import MeasurementError, UnresolvedLinkError
from bench.core.nouns import Layout
from bench.core.statistics import median
from bench.core.units import format_duration
from bench.emulate.group import Carried, Emulation, start_emulation
from bench.emulate.replay import StepNotes
from bench.hardware.costs.collectives import Cost, Group, Op
from bench.hardware.costs.cost import CostModel, model_of
from bench.measure.communication.communication import Traces, average_of
from bench.measure.engine.engine import StepCount, Stepping, StepsEndedError
from bench.parallel.ranks import Ranks, within
from bench.results.schema import Row

TRACED_STEPS = 30
TRACED_S = 3.0
FEWEST_TRACED = 5
"""What is traced after a window on an accelerator: so many steps, or so long, but the fewest."""
CONTENDED_PAIRS = 100
CONTENDED_S = 3.0
FEWEST_PAIRS = 4
"""Pairs of steps without and with contention, the first not counted: so many, or so long, but the
fewest."""


class ModelledLink:
    """A running emulation or throttle, its cost model, and the traces of the window."""

    def __init__(
        self,
        layout: Layout,
        *,
        emulation: Emulation,
        model: CostModel,
        step: Callable[[], StepCount],
        synchronize: Callable[[], None],
    ) -> None:
        self._layout = layout
        self._emulation = emulation
        self.model = model
        self._step = step
        self._synchronize = synchronize
        self.period_steps = 1
        """Steps after which communication repeats itself; set when the net is laid out."""
        self.waits_hide = True
        """Whether compute goes on beside a collective until it is waited for; set as well."""
        self.is_smoke = False
        """Whether the fewest steps that have all columns will do; set as well."""
        self.traces = Traces()
        self.is_traced = layout.mode == "simulated" or emulation.device.type == "cpu"
        """Whether the steps of the window are traced, which costs nothing there."""

    def run(self) -> StepCount:
        """Do one step, traced where that costs nothing.

        With all that it waits for: a loader is waited for on any link.
        """
        if not self.is_traced:
            return self._step()
        self.begin_step()
        done = self._step()
        self.end_step()
        return done

    def begin_step(self) -> None:
        """Note what is sent from here on."""
        self._emulation.begin_step()

    def end_step(self, *, is_kept: bool = True) -> StepNotes:
        """End the notes of the step, and keep them among the window's."""
        notes = self._emulation.end_step()
        if is_kept:
            self.traces.add(notes)
        return notes

    def begin_window(self) -> None:
        """Forget the warm-up's traces; `UnresolvedLinkError` where they show nothing to emulate."""
        if self.traces.kept:
            self._refuse_unresolved(self.traces.kept[-1][1])
        self.traces = Traces(period=self.period_steps)

    def begin_counting(self) -> None:
        """Count what is carried from here on."""
        self._emulation.carried = Carried()

    def pass_columns(self, num_passes: int) -> Row:
        """Columns of one of so many passes, their mean; what waited for them is not known."""
        carried = self._emulation.carried
        assert carried is not None, "counting has begun"
        each_ms = 1e3 / num_passes
        return {
            "link_method": "+".join(sorted(carried.methods)),
            "comm_ops": round(carried.num_ops / num_passes),
            "comm_bytes": round(carried.num_bytes / num_passes),
            "comm_total_ms": carried.total_s * each_ms,
            "comm_low_ms": carried.low_s * each_ms,
            "comm_high_ms": carried.high_s * each_ms,
        }

    def _refuse_unresolved(self, notes: StepNotes) -> None:
        if self._layout.mode == "simulated" or self._layout.link == "infinite":
            return
        resolution_s = self._emulation.link.resolution_s
        longest_s = max((one.modelled_s for one in notes.trace.collectives), default=0.0)
        if 0.0 < longest_s < resolution_s:
            raise UnresolvedLinkError(
                f"on {self._layout.link} the longest collective takes "
                f"{format_duration(longest_s)}, and this device keeps "
                f"{format_duration(resolution_s)}: nothing would be emulated; "
                "use --mode simulated, a slower --link or larger messages"
            )

    def tracing_afterwards(self) -> Stepping[None]:
        """Trace some steps where the window was not traced, of steps that whoever drives it does.

        What is no usual step is traced and let go.
        """
        if self.is_traced:
            return
        # Real ranks trace a fixed number: each by its own clock would leave one waiting.
        most = FEWEST_TRACED if self._layout.mode == "throttled" else TRACED_STEPS
        most = 1 if self.is_smoke else most
        fewest = max(FEWEST_TRACED, self.period_steps)
        start_s = time.monotonic()
        while self.traces.num_seen < max(most, self.period_steps):
            self.begin_step()
            try:
                is_usual = (yield) is not None
            except StepsEndedError:
                if self.traces.kept:
                    return
                raise MeasurementError(
                    "the program ended with its window, before a step was traced on the link; "
                    "give it more to do, such as more epochs"
                ) from None
            notes = self.end_step(is_kept=is_usual)
            if self.traces.num_seen == 1 and is_usual:
                self._refuse_unresolved(notes)
            is_late = time.monotonic() - start_s > TRACED_S
            if most > FEWEST_TRACED and self.traces.num_seen >= fewest and is_late:
                break

    def contended_columns(self, step_s: Sequence[float], *, row: Row) -> Row:
        """Columns of the step while communication also takes resources; `step_s` are those without.

        The upper end of the bracket in `row` is then that of a slow link beside slowed compute.
        Nothing where the layout asks for none, nothing is emulated, or the link's share is not
        known, as on a CPU: what gloo and TCP take there differs from machine to machine. Steps of
        the window are not synchronised, so what contention adds comes from pairs of synchronised
        steps, without and with it in turn.
        """
        asked = self._layout.contention
        if self._layout.mode != "emulated" or asked in ("none", "0"):
            return {}
        units = int(asked) if asked.isdecimal() else self.model.topology.inner.contention_units
        if not units or self._emulation.device.type == "cpu":
            return {}
        added_s = self._added_s(units)
        asked_bytes, moved_bytes = self._emulation.link.take_traffic()
        return {
            "contended_step_ms": (average_of(self._layout)(step_s) + added_s) * 1e3,
            "step_high_ms": float(str(row["step_high_ms"])) + added_s * 1e3,
            "contention_units": units,
            "contention_moved_frac": moved_bytes / asked_bytes if asked_bytes else None,
        }

    def _added_s(self, units: int) -> float:
        """Median of what contention adds to a step; the first pair is not counted.

        It only takes: where a busy machine makes that less than nothing, it is nothing.
        """
        added_s: list[float] = []
        # A period of a mitigation that communicates rarely may be hundreds of steps.
        fewest = FEWEST_PAIRS if self.period_steps == 1 else 1
        most = min(fewest, 2) if self.is_smoke else CONTENDED_PAIRS
        start_s = time.monotonic()
        while len(added_s) < most:
            took_s = []
            for wanted in (0, units):
                self._emulation.link.set_contention(wanted)
                self._synchronize()
                begin_s = time.monotonic()
                for _ in range(self.period_steps):
                    self._step()
                    self._synchronize()
                took_s.append(time.monotonic() - begin_s)
            self._emulation.link.set_contention(0)
            added_s.append((took_s[1] - took_s[0]) / self.period_steps)
            if time.monotonic() - start_s > CONTENDED_S and len(added_s) >= fewest:
                break
        return max(0.0, median(added_s[1:] or added_s))


def open_link(
    layout: Layout, *, device: torch.device, ranks: Ranks | None, **does: Any
) -> ModelledLink | None:
    """Make torch's default group over the layout's link; None where no link is modelled.

    Real ranks without a modelled link have their group already; those with one are throttled.
    `does` is how a `ModelledLink` steps.
    """
    if not layout.link:
        return None
    model = model_of(layout.link)
    is_free = layout.mode == "simulated"
    emulation = start_emulation(
        num_ranks=layout.devices,
        model=_Free(model.topology) if is_free else model,
        device=device,
        is_timed=not is_free,
        store=None if ranks is None else within(ranks.store, number=0),
        rank=0 if ranks is None else ranks.rank,
    )
    return ModelledLink(layout, emulation=emulation, model=model, **does)


class _Free(CostModel):
    """Ranks that lie as a model's, on a link that takes no time: what a simulation starts from."""

    def cost(self, op: Op, *, num_bytes: int, group: Group) -> Cost:
        return Cost(0.0, 0.0, 0.0, "infinite", "")
