"""What a rank did in one step, noted while it runs and put in order afterwards.

A moment is noted as the link knows it: seconds on a CPU, the number of a stamp on an accelerator,
which is read when the step is over. Noting takes a list append; everything else is in `_Lane`,
which runs when somebody asks for the trace: a step is timed, and what follows it is too.

Who waits is not always seen. DDP waits inside C++ for the futures that it took, when the backward
pass is through: only the begin and the end of that are noted (`Drained`), and its waits are laid
out one after another, in the order in which the collectives were complete.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from bench.emulate.trace import Collective, Mark, StepTrace
from bench.hardware.collectives import Group, Op

Moment = float | int
"""Seconds, or the number of a stamp: a link says what it is with `resolve`."""
Resolve = Callable[[Moment], float]


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


@dataclass(frozen=True, slots=True)
class Drained:
    """Compute stood here until every future that it had taken was complete."""

    start: Moment
    end: Moment


@dataclass(frozen=True, kw_only=True)
class StepNotes:
    """The notes of one step, put in order when its trace is first asked for."""

    begin: Moment
    end: Moment
    issued: list[Issued]
    drained: list[Drained]
    resolve: Resolve

    @cached_property
    def trace(self) -> StepTrace:
        """The step, in seconds from its begin."""
        begin_s = self.resolve(self.begin)
        lane = _Lane(self.issued, self.drained, seconds=lambda m: self.resolve(m) - begin_s)
        return lane.trace(duration_s=self.resolve(self.end) - begin_s)


class Recorder:
    """Notes of the step between `begin` and `end`; nothing is noted outside."""

    def __init__(self) -> None:
        self.is_on = False
        self.step = 0
        self._begin: Moment = 0.0
        self._issued: list[Issued] = []
        self._drained: list[Drained] = []
        self._task = -1

    def begin(self, now: Moment) -> None:
        """Start noting."""
        self._begin = now
        self._issued, self._drained, self._task = [], [], -1
        self.step += 1
        self.is_on = True

    def is_noting(self, issued: Issued) -> bool:
        """Whether what happens to a collective now belongs to the step that issued it."""
        return self.is_on and issued.step == self.step

    def is_first_in(self, task: int) -> bool:
        """Whether this backward pass asks for the first time."""
        is_first, self._task = task != self._task, task
        return is_first

    def note(self, issued: Issued) -> None:
        """Take a collective; whoever issued it goes on filling in its moments."""
        self._issued.append(issued)

    def note_drained(self, start: Moment, end: Moment) -> None:
        """Note that compute waited for whatever it had taken the future of."""
        self._drained.append(Drained(start, end))

    def end(self, now: Moment, *, resolve: Resolve) -> StepNotes:
        """Stop noting and return the notes; `resolve` must stay right for their moments."""
        self.is_on = False
        return StepNotes(
            begin=self._begin,
            end=now,
            issued=self._issued,
            drained=self._drained,
            resolve=resolve,
        )


class _Lane:
    """Puts the notes of one step in the order in which compute lived them."""

    def __init__(
        self, issued: Iterable[Issued], drained: Iterable[Drained], *, seconds: Resolve
    ) -> None:
        self._issued = [one for one in issued if one.end is not None]
        self._collectives = [_collective(one, seconds=seconds) for one in self._issued]
        self._waits = [
            Mark(kind="wait", collective=index, start_s=seconds(start), end_s=seconds(end))
            for index, one in enumerate(self._issued)
            for start, end in one.waits[:1]
        ]
        self._seconds = seconds
        self._drain(sorted((seconds(one.start), seconds(one.end)) for one in drained))

    def _drain(self, drains: list[tuple[float, float]]) -> None:
        waited = {mark.collective for mark in self._waits}
        by_end = sorted(range(len(self._issued)), key=lambda i: self._collectives[i].end_s)
        for start_s, end_s in drains:
            cursor_s = start_s
            for index in by_end:
                one = self._collectives[index]
                is_taken = self._issued[index].is_future_taken and index not in waited
                if not is_taken or one.issued_s > end_s:
                    continue
                waited.add(index)
                until_s = max(cursor_s, min(self._seen_s(index), end_s))
                self._waits.append(
                    Mark(kind="drain", collective=index, start_s=cursor_s, end_s=until_s)
                )
                cursor_s = until_s

    def _seen_s(self, index: int) -> float:
        seen = self._issued[index].seen
        return self._collectives[index].end_s if seen is None else self._seconds(seen)

    def _issues(self) -> Iterable[Mark]:
        waits = {mark.collective: mark for mark in self._waits}
        for index, one in enumerate(self._issued):
            if one.is_on_lane and one.mark_end is not None:
                start_s, end_s = self._seconds(one.mark_start), self._seconds(one.mark_end)
            else:
                start_s = end_s = self._collectives[index].issued_s
            if index in waits and start_s > waits[index].start_s:
                # Issued by a callback while compute already stood: before the wait, at no time.
                start_s = end_s = waits[index].start_s
            yield Mark(kind="issue", collective=index, start_s=start_s, end_s=end_s)

    def trace(self, *, duration_s: float) -> StepTrace:
        """Return the step; marks follow one another and never overlap."""
        marks = sorted(
            [*self._issues(), *self._waits],
            # Of marks that begin together, what takes no time came first.
            key=lambda m: (m.start_s, m.kind != "issue", m.end_s),
        )
        ordered: list[Mark] = []
        cursor_s = 0.0
        for mark in marks:
            start_s = max(cursor_s, mark.start_s)
            cursor_s = max(start_s, mark.end_s)
            ordered.append(
                Mark(kind=mark.kind, collective=mark.collective, start_s=start_s, end_s=cursor_s)
            )
        return StepTrace(
            duration_s=duration_s, collectives=tuple(self._collectives), marks=tuple(ordered)
        )


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
