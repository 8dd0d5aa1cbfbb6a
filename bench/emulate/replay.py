"""Traces of steps, and their event simulation: the same compute and order on another link.

Compute between the marks of a trace is kept as recorded; collectives queue on serial links in the
order of issue, and a wait ends when its collective does. With the recorded prices that is what the
step should have taken: a difference shows an error of the timer, or contention. With a cost model
it is the step on another link. Left out: that compute runs slower beside communication.

A trace begins before the step waits for its first batch. Its times are seconds on one clock (the
host's on a CPU, else the device's) from there. A moment is noted as the link knows it: seconds, or
the number of a stamp that is read when the step is over. Noting is a list append; the rest waits
until somebody asks for the trace, since a step is timed, and what follows it too. DDP waits inside
C++ for the futures that it took: of that only begin and end are noted (a drain), and its waits are
laid out one after another, in the order in which the collectives were complete.

Ranks that are each as unsteady as the one measured end a step when the slowest does: the mean of
the largest of N draws, exact from the order statistics of the sample. Left out: a rank that is
slow for good, and what slows all at once, which would make the effect smaller.
"""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from bench.emulate.link.serial_link import SerialLinks, level_of
from bench.hardware.costs.collectives import Group, Op
from bench.hardware.costs.cost import CostModel

Moment = float | int
"""Seconds, or the number of a stamp: a link resolves its own."""
Resolve = Callable[[Moment], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Collective:
    """One collective of the step."""

    op: Op
    num_bytes: int
    group: Group
    modelled_s: float
    """What the link took for it in the run, without queueing."""
    issued_s: float
    """When its input was ready and it was handed to the link."""
    start_s: float
    """When the link began with it: later than issued when the link was busy."""
    end_s: float
    """When it was complete for what waits for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """Something that the compute lane did, in order."""

    kind: Literal["issue", "wait", "drain"]
    """A wait is for one collective, by name; a drain for whatever DDP still has under way."""
    collective: int
    """Index into `StepTrace.collectives`."""
    start_s: float
    """Compute up to here since the last mark's end."""
    end_s: float
    """When compute went on: for a wait, after the collective was complete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTrace:
    """One traced step of one rank."""

    duration_s: float
    collectives: tuple[Collective, ...]
    marks: tuple[Mark, ...]


@dataclass(kw_only=True, slots=True)
class Issued:
    """One collective; the link fills in when it ran."""

    op: Op
    num_bytes: int
    group: Group
    modelled_s: float
    mark_start: Moment
    is_on_lane: bool
    """Whether compute issued it, or a callback of another collective did."""
    mark_end: Moment | None = None
    ready: tuple[Moment, ...] = ()
    """When its input was ready: the earliest of these."""
    start: Moment | None = None
    end: Moment | None = None
    seen: Moment | None = None
    """When its future was complete: late by what waking the thread took."""
    is_future_taken: bool = False
    waits: list[tuple[Moment, Moment]] = field(default_factory=list)
    step: int = 0
    """Number of the recorded step that it was issued in."""


@dataclass(kw_only=True)
class StepNotes:
    """The notes of one step, put in order when its trace is first asked for."""

    begin: Moment
    end: Moment = 0.0
    issued: list[Issued] = field(default_factory=list)
    """Collectives; their moments are filled in later."""
    drained: list[tuple[Moment, Moment]] = field(default_factory=list)
    """From when to when compute stood until every future that it had taken was complete."""
    resolve: Resolve = float

    @cached_property
    def trace(self) -> StepTrace:
        """The step, in seconds from its begin; marks follow one another and never overlap."""
        issued = [one for one in self.issued if one.end is not None]
        collectives = tuple(map(self._collective, issued))
        waits = [
            Mark(
                kind="wait",
                collective=index,
                start_s=self._seconds(start),
                end_s=self._seconds(end),
            )
            for index, one in enumerate(issued)
            for start, end in one.waits[:1]
        ]
        waits += self._drain_marks(issued, collectives, waits=waits)
        marks = [*self._issue_marks(issued, collectives, waits=waits), *waits]
        return StepTrace(
            duration_s=self._seconds(self.end),
            collectives=collectives,
            marks=tuple(_in_order(marks)),
        )

    def _seconds(self, moment: Moment) -> float:
        return self.resolve(moment) - self.resolve(self.begin)

    def _collective(self, issued: Issued) -> Collective:
        assert issued.start is not None and issued.end is not None and issued.ready
        return Collective(
            op=issued.op,
            num_bytes=issued.num_bytes,
            group=issued.group,
            modelled_s=issued.modelled_s,
            issued_s=min(map(self._seconds, issued.ready)),
            start_s=self._seconds(issued.start),
            end_s=self._seconds(issued.end),
        )

    def _drain_marks(
        self, issued: Sequence[Issued], collectives: Sequence[Collective], *, waits: Sequence[Mark]
    ) -> Iterator[Mark]:
        """Divide each drain over the collectives whose future was taken and that no wait names."""
        waited = {mark.collective for mark in waits}
        by_end = sorted(range(len(issued)), key=lambda index: collectives[index].end_s)
        for cursor_s, end_s in sorted(tuple(map(self._seconds, drain)) for drain in self.drained):
            for index in by_end:
                one = issued[index]
                is_taken = one.is_future_taken and index not in waited
                if not is_taken or collectives[index].issued_s > end_s:
                    continue
                waited.add(index)
                seen_s = collectives[index].end_s if one.seen is None else self._seconds(one.seen)
                until_s = max(cursor_s, min(seen_s, end_s))
                yield Mark(kind="drain", collective=index, start_s=cursor_s, end_s=until_s)
                cursor_s = until_s

    def _issue_marks(
        self, issued: Sequence[Issued], collectives: Sequence[Collective], *, waits: Sequence[Mark]
    ) -> Iterator[Mark]:
        waited_s = {mark.collective: mark.start_s for mark in waits}
        for index, one in enumerate(issued):
            start_s = end_s = collectives[index].issued_s
            if one.is_on_lane and one.mark_end is not None:
                start_s, end_s = self._seconds(one.mark_start), self._seconds(one.mark_end)
            if start_s > waited_s.get(index, math.inf):
                # Issued by a callback while compute already stood: before the wait, at no time.
                start_s = end_s = waited_s[index]
            yield Mark(kind="issue", collective=index, start_s=start_s, end_s=end_s)


def _in_order(marks: list[Mark]) -> Iterator[Mark]:
    cursor_s = 0.0
    # Of marks that begin together, what takes no time came first.
    for mark in sorted(marks, key=lambda one: (one.start_s, one.kind != "issue", one.end_s)):
        start_s = max(cursor_s, mark.start_s)
        cursor_s = max(start_s, mark.end_s)
        yield replace(mark, start_s=start_s, end_s=cursor_s)


class Recorder:
    """Notes of the step between `begin` and `end`; nothing is noted outside."""

    def __init__(self) -> None:
        self.is_on = False
        self.step = 0
        self.notes = StepNotes(begin=0.0)
        self._task = -1

    def begin(self, now: Moment) -> None:
        """Start noting."""
        self.notes, self._task = StepNotes(begin=now), -1
        self.step += 1
        self.is_on = True

    def is_noting(self, issued: Issued) -> bool:
        """Whether what happens to a collective now belongs to the step that issued it."""
        return self.is_on and issued.step == self.step

    def is_first_in(self, task: int) -> bool:
        """Whether this backward pass asks for the first time."""
        is_first, self._task = task != self._task, task
        return is_first

    def end(self, now: Moment, *, resolve: Resolve) -> StepNotes:
        """Stop noting and return the notes; `resolve` must stay right for their moments."""
        self.is_on = False
        self.notes.end, self.notes.resolve = now, resolve
        return self.notes


Bound = Literal["seconds", "low_s", "high_s"]
"""Which of a modelled cost's times is used: the model's, or an end of its error band."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """One simulated step, in seconds."""

    step_s: float
    compute_s: float
    """What the step takes when no collective takes time."""
    comm_total_s: float
    """Sum of the collectives' times on their links, without queueing."""
    comm_exposed_s: float
    """Part of the step in which compute only waited: `step_s - compute_s`."""


def replay(
    trace: StepTrace,
    *,
    model: CostModel | None = None,
    bound: Bound = "seconds",
    is_free: bool = False,
    waits_hide: bool = True,
) -> Replay:
    """Simulate the step; without a model each collective takes what the run's link took for it.

    `bound` needs a model: recorded prices have no band. `is_free`: the trace was recorded
    on a link without time: a collective then begins when the call that issued it returns, since
    what the call took was the recording's and hides nothing. Without `waits_hide` a collective that
    is waited for by name begins with that wait: its result is needed at once, and what the host
    does between the two, looking up the next operator, is no work for it to hide behind.
    """
    times_s = [_price_s(one, model=model, bound=bound) for one in trace.collectives]
    late: set[int] = set()  # begin when they are waited for, not when they are issued
    if not waits_hide:
        late = {mark.collective for mark in trace.marks if mark.kind == "wait"}
    links = SerialLinks()
    end_s: dict[int, float] = {}

    def transfer(index: int, *, ready_s: float) -> None:
        level = level_of(trace.collectives[index].group)
        _, end_s[index] = links.reserve(level, now_s=ready_s, duration_s=times_s[index])

    now_s = recorded_s = compute_s = 0.0
    for mark in trace.marks:
        # Device events resolve half a microsecond, so that two marks may seem to overlap.
        worked_s = max(0.0, mark.start_s - recorded_s)
        index = mark.collective
        if mark.kind == "issue":
            issuing_s = mark.end_s - mark.start_s
            handed_s = mark.end_s if is_free else trace.collectives[index].issued_s
            if index not in late:
                within_s = min(max(handed_s - mark.start_s, 0.0), issuing_s)
                transfer(index, ready_s=now_s + worked_s + within_s)
            worked_s += issuing_s
            now_s += worked_s
        else:
            if index in late:
                transfer(index, ready_s=now_s + worked_s)
            now_s = max(now_s + worked_s, end_s[index])
        compute_s += worked_s
        recorded_s = mark.end_s
    worked_s = max(0.0, trace.duration_s - recorded_s)
    # What no mark waits for is waited for at the end: it must never come for nothing.
    step_s = max([now_s + worked_s, *end_s.values()])
    compute_s += worked_s
    return Replay(
        step_s=step_s,
        compute_s=compute_s,
        comm_total_s=sum(times_s),
        comm_exposed_s=max(0.0, step_s - compute_s),
    )


def _price_s(one: Collective, *, model: CostModel | None, bound: Bound) -> float:
    if model is None:
        return one.modelled_s
    if one.group.num_ranks == 1:
        return 0.0  # nobody to talk to
    price_s: float = getattr(model.cost(one.op, num_bytes=one.num_bytes, group=one.group), bound)
    return price_s


def expected_step_s(step_s: Sequence[float], *, num_ranks: int) -> float:
    """Expect the largest of `num_ranks` draws from measured times; ValueError when there are none.

    With more ranks than measured steps it is a lower bound: slower steps than were ever seen are
    to be expected.
    """
    if not step_s or num_ranks < 1:
        raise ValueError("stragglers need at least one measured step and one rank")
    # The largest is at most the i-th smallest when all draws are: (i / count) ** num_ranks.
    count = len(step_s)
    reached = [(index / count) ** num_ranks for index in range(count + 1)]
    weights = map(operator.sub, reached[1:], reached)
    return math.fsum(map(operator.mul, sorted(step_s), weights))


def straggler_step_s(replays: Sequence[Replay], *, num_ranks: int) -> float:
    """Expect the step of `num_ranks` ranks that wait for each other once in each step.

    The compute of a step is drawn for each rank; what it waits for the link comes on top.
    """
    waited_s = math.fsum(one.comm_exposed_s for one in replays) / max(len(replays), 1)
    return expected_step_s([one.compute_s for one in replays], num_ranks=num_ranks) + waited_s
