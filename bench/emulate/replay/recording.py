"""What a rank did in one step, noted while it runs and put in order afterwards, as a trace.

A trace says when compute issued a collective and when it waited for one; `simulate` replays it. Its
times are seconds on one clock (the host's on a CPU, the device's on an accelerator) from the start
of the step. What lies between two marks is compute.

A moment is noted as the link knows it: seconds on a CPU, the number of a stamp on an accelerator,
which is read when the step is over. Noting takes a list append; everything else runs when somebody
asks for the trace: a step is timed, and what follows it is too.

Who waits is not always seen. DDP waits inside C++ for the futures that it took, when the backward
pass is through: only the begin and the end of that are noted (a drain), and its waits are laid out
one after another, in the order in which the collectives were complete.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from bench.hardware.costs.collectives import Group, Op

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
        begin_s = self.resolve(self.begin)

        def seconds(moment: Moment) -> float:
            return self.resolve(moment) - begin_s

        issued = [one for one in self.issued if one.end is not None]
        collectives = tuple(_collective(one, seconds=seconds) for one in issued)
        waits = [
            Mark(kind="wait", collective=index, start_s=seconds(start), end_s=seconds(end))
            for index, one in enumerate(issued)
            for start, end in one.waits[:1]
        ]
        drains = sorted((seconds(start), seconds(end)) for start, end in self.drained)
        waits += _drain_marks(drains, issued, collectives, waits=waits, seconds=seconds)
        marks = [*_issue_marks(issued, collectives, waits=waits, seconds=seconds), *waits]
        return StepTrace(
            duration_s=seconds(self.end), collectives=collectives, marks=tuple(_in_order(marks))
        )


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


def _drain_marks(
    drains: Sequence[tuple[float, float]],
    issued: Sequence[Issued],
    collectives: Sequence[Collective],
    *,
    waits: Sequence[Mark],
    seconds: Resolve,
) -> Iterator[Mark]:
    """Divide each drain over the collectives whose future was taken and that no wait names."""
    waited = {mark.collective for mark in waits}
    by_end = sorted(range(len(issued)), key=lambda index: collectives[index].end_s)
    for cursor_s, end_s in drains:
        for index in by_end:
            one = issued[index]
            is_taken = one.is_future_taken and index not in waited
            if not is_taken or collectives[index].issued_s > end_s:
                continue
            waited.add(index)
            seen_s = collectives[index].end_s if one.seen is None else seconds(one.seen)
            until_s = max(cursor_s, min(seen_s, end_s))
            yield Mark(kind="drain", collective=index, start_s=cursor_s, end_s=until_s)
            cursor_s = until_s


def _issue_marks(
    issued: Sequence[Issued],
    collectives: Sequence[Collective],
    *,
    waits: Sequence[Mark],
    seconds: Resolve,
) -> Iterator[Mark]:
    waited_s = {mark.collective: mark.start_s for mark in waits}
    for index, one in enumerate(issued):
        start_s = end_s = collectives[index].issued_s
        if one.is_on_lane and one.mark_end is not None:
            start_s, end_s = seconds(one.mark_start), seconds(one.mark_end)
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


def _collective(issued: Issued, *, seconds: Resolve) -> Collective:
    assert issued.start is not None and issued.end is not None and issued.ready
    return Collective(
        op=issued.op,
        num_bytes=issued.num_bytes,
        group=issued.group,
        modelled_s=issued.modelled_s,
        issued_s=min(seconds(moment) for moment in issued.ready),
        start_s=seconds(issued.start),
        end_s=seconds(issued.end),
    )
