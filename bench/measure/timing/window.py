"""The measured window: steps between two device synchronisations.

Throughput comes from the host clock around the whole window. Steps are separated by device events
recorded at their boundaries, without a synchronisation per step: one costs tens of microseconds and
breaks the overlap of host and device. Where a device has no usable events each step is synchronised
and `step_clock` has it. Twice a second the stop rule looks at the steps finished so far. Ranks that
step together must stop together, so with several the next look is a number of steps, fixed by
rank 0 at the look before, and its verdict is everyone's.

The loops ask for a step by `yield` and are sent what it processed: an engine does it
(`Engine.drive`), or a user's program, whose steps are only seen to end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal, TypeVar

import numpy as np

from bench.core import statistics
from bench.devices.torch.adapter import Adapter
from bench.measure.engine.engine import Engine, StepCount, Stepping, StepsEndedError
from bench.measure.timing.clock import Clock
from bench.measure.timing.drift import levelled
from bench.measure.timing.limits import Limits

MAX_QUEUED_STEPS = 64
MAX_QUEUED_S = 1.0
"""How far the host may run ahead: a deeper queue hides stalls, holds memory and stops late."""
CHECK_EVERY_S = 0.5
MOST_LOOKED_AT = 2000
LEFT_FRAC = 0.05
"""A device with less than this part of a step left when the host has queued it keeps up with it."""

StepClock = Literal["event", "host", "host_sync"]
StopRule = Callable[[float, list[float]], bool]
"""`rule(elapsed_s, step_s)`: whether to stop, from the time and the steps so far, `levelled`."""
T = TypeVar("T")
Agree = Callable[[int], int]
"""`agree(steps)`: rank 0's number of steps to the next look, in every rank; 0 is to stop."""


@dataclass(kw_only=True)
class Window:
    """What was measured. Times in seconds; step times in order."""

    step_clock: StepClock
    start_s: float
    end_s: float
    step_s: list[float]
    counts: list[StepCount] = field(repr=False)
    clock_went_backwards: bool = False
    host_bound_frac: float | None = None
    """Share of steps that the device had all but done when the host had queued them: there it works
    at the host's pace. Events cannot show it, since they add up to the wall time. A step that only
    waits for the one before, as a blocking copy does, leaves its own work to the device and does
    not count. None where events do not separate the steps."""

    apart_step_s: list[float] = field(default_factory=list)
    """Times of what was no step like the others, in order; they are in no figure."""

    @property
    def apart_s(self) -> float:
        """Time of what was no step like the others."""
        return sum(self.apart_step_s)

    @property
    def wall_s(self) -> float:
        """Length of the window, without what is apart."""
        return self.end_s - self.start_s - self.apart_s

    @property
    def level_s(self) -> list[float]:
        """Steps as if all had been of one size: what steadiness is judged by."""
        return levelled(self.step_s, self.counts)


class Boundaries:
    """Ends of steps on the finest honest clock of a device: `step_clock`."""

    def __init__(self, adapter: Adapter, *, clock: Clock) -> None:
        self._adapter = adapter
        self._clock = clock
        self.step_clock: StepClock = "host"
        if adapter.is_asynchronous:
            self.step_clock = "host_sync" if adapter.make_event() is None else "event"

    def boundary(self) -> Any:
        """Return an event after what is queued; where there are none the host waits for its end."""
        event = self._adapter.make_event() if self.step_clock == "event" else None
        if event is None:
            self._adapter.synchronize()
            return _HostEvent(self._clock.now_s())
        event.record()
        return event


class _HostEvent:
    """A reading of the host clock, asked as a `DeviceEvent` is."""

    def __init__(self, at_s: float) -> None:
        self._at_s = at_s

    def query(self) -> bool:
        return True

    def elapsed_ms(self, end: _HostEvent) -> float:
        return (end._at_s - self._at_s) * 1e3


class _Marks(Boundaries):
    """Boundaries of the steps of a window; the host stays a bounded way ahead of the device."""

    def __init__(self, adapter: Adapter, *, clock: Clock, depth: int) -> None:
        super().__init__(adapter, clock=clock)
        self._depth = depth
        self._has_events = self.step_clock == "event"
        self._elapsed_s: list[float] = []
        self._queued_s: list[float] = []
        self._events = deque([self.boundary()])
        self.times_s = [clock.now_s()]
        self.apart: set[int] = set()
        """Intervals that are no steps, by their number."""

    @property
    def apart_step_s(self) -> list[float]:
        """Times of the intervals that are no steps, by events where they have been passed."""
        if self.apart:
            self._read_events()
        return list(map(self._interval_s, sorted(self.apart)))

    @property
    def end_s(self) -> float:
        """When the last interval ended, on the device where that separates them."""
        return self.times_s[0] + sum(map(self._interval_s, range(len(self.times_s) - 1)))

    def mark(self, *, is_step: bool = True) -> float:
        if not is_step:
            self.apart.add(len(self.times_s) - 1)
        if self._has_events:
            self._events.append(self.boundary())
            self._queued_s.append(self._clock.now_s())
            if len(self._events) > self._depth:
                self._events[-1 - self._depth].synchronize()
        else:  # a short step must not wait for more than one reading
            self._adapter.synchronize()
        self.times_s.append(self._clock.now_s())
        return self.times_s[-1]

    def host_bound_frac(self) -> float | None:
        """Share of finished steps of which nothing was left on the device once they were queued.

        The first event and the first time are one moment, since the device was synchronised: that
        lays the device's times over the host's, to some 10 us.
        """
        if not self._elapsed_s:
            return None
        done_s, bound = self.times_s[0], []
        for queued_s, step_s in zip(self._queued_s, self._elapsed_s, strict=False):
            done_s += step_s
            bound.append(done_s - queued_s < LEFT_FRAC * step_s)
        return fmean(self._of_steps(bound))

    def step_s(self) -> list[float]:
        if not self._has_events:
            return self._of_steps([later - earlier for earlier, later in pairwise(self.times_s)])
        self._read_events()
        return self._of_steps(self._elapsed_s)

    def _read_events(self) -> None:
        # An event that has been read is let go: millions would weigh on the driver.
        while len(self._events) > 1 and self._events[1].query():
            start = self._events.popleft()
            self._elapsed_s.append(start.elapsed_ms(self._events[0]) / 1e3)

    def _interval_s(self, index: int) -> float:
        if index < len(self._elapsed_s):
            return self._elapsed_s[index]
        return self.times_s[index + 1] - self.times_s[index]

    def _of_steps(self, intervals: Sequence[T]) -> list[T]:
        if not self.apart:  # as of every engine: this is asked for inside the window
            return list(intervals)
        return [one for index, one in enumerate(intervals) if index not in self.apart]


def run_window(engine: Engine, **asked: Any) -> Window:
    """Run the engine's steps until the rule says stop, as `window_of` has it."""
    return engine.drive(window_of(engine, **asked))


def window_of(
    engine: Engine,
    *,
    should_stop: StopRule,
    expected_step_s: float | None = None,
    agree: Agree | None = None,
    ends_round: bool = False,
) -> Stepping[Window]:
    """Time steps until the rule says stop; it is asked after step 1, 2, 4, ... then twice a second.

    With `agree` all ranks take rank 0's answer, after the same steps. `ends_round`: it holds whole
    periods of communication, and one process goes on to the end of a round of items that differ,
    so that each counts alike; unless that would take longer than the steps before.
    """
    adapter, period_steps = engine.adapter, engine.period_steps if ends_round else 1
    counts: list[StepCount] = []
    adapter.synchronize()
    marks = _Marks(adapter, clock=engine.clock, depth=_queue_depth(expected_step_s))
    start_s = next_check_s = marks.times_s[0]
    next_check, has_ended = 1, False
    while True:
        try:
            count = yield
        except StepsEndedError:
            if not counts:
                raise
            has_ended = True
            break
        now_s = marks.mark(is_step=count is not None)
        if count is None:
            continue
        counts.append(count)
        is_due = len(counts) >= next_check if agree is not None else now_s >= next_check_s
        if is_due and len(counts) % period_steps == 0:
            elapsed_s = now_s - start_s - sum(marks.apart_step_s)
            is_enough = should_stop(elapsed_s, levelled(marks.step_s(), counts))
            if agree is not None:
                ahead = agree(0 if is_enough else _steps_ahead(len(counts), elapsed_s))
                is_enough = ahead == 0
                next_check = len(counts) + ahead
            if is_enough:
                break
            next_check_s = now_s + min(CHECK_EVERY_S, elapsed_s)
    num_left = 0 if has_ended else -len(counts) % engine.round_steps
    if ends_round and agree is None and num_left <= len(counts):
        for _ in range(num_left):
            count = yield
            assert count is not None, "rounds are an engine's, whose steps are all alike"
            counts.append(count)
            marks.mark()
    adapter.synchronize()
    step_s, times_s = marks.step_s(), [*marks.times_s, engine.clock.now_s()]
    return Window(
        step_clock=marks.step_clock,
        start_s=start_s,
        # What a program does behind its last step is no part of it.
        end_s=marks.end_s if has_ended else times_s[-1],
        step_s=step_s,
        counts=counts,
        clock_went_backwards=times_s != sorted(times_s),
        host_bound_frac=marks.host_bound_frac(),
        apart_step_s=marks.apart_step_s,
    )


def _steps_ahead(num_steps: int, elapsed_s: float) -> int:
    """Steps until about the time at which a single rank would look again."""
    if elapsed_s <= CHECK_EVERY_S:
        return num_steps
    return max(1, int(num_steps * CHECK_EVERY_S / elapsed_s))


def _queue_depth(expected_step_s: float | None) -> int:
    if not expected_step_s:
        return 2
    return max(2, min(MAX_QUEUED_STEPS, int(MAX_QUEUED_S / expected_step_s)))


def measured_enough(limits: Limits) -> StopRule:
    """Stop rule of the window: the minimum reached, and precise or out of time.

    It looks at precision only, never at whether the result differs from another one.
    """

    def should_stop(elapsed_s: float, step_s: list[float]) -> bool:
        if elapsed_s >= limits.window_hard_s:
            return True
        if len(step_s) < limits.window_min_steps or elapsed_s < limits.window_min_s:
            return False
        if elapsed_s >= limits.window_max_s:
            return True
        # Means of blocks: the rule costs a few ms at most, however short the steps are.
        size = -(-len(step_s) // MOST_LOOKED_AT)
        blocks = np.reshape(step_s[: len(step_s) // size * size], (-1, size)).mean(axis=1)
        half_width = statistics.batch_means_half_width_frac(blocks.tolist())
        return half_width is not None and half_width <= limits.target_half_width_frac

    return should_stop
