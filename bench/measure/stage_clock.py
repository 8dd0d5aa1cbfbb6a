"""Times between the stages of one pass: device events, or the host clock where nothing is queued.

Both note boundaries while a pass runs and give its intervals afterwards, in seconds. A device that
runs behind the host but has no events is synchronised at each boundary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from bench.devices.adapter import Adapter, DeviceEvent
from bench.measure.clock import Clock


class StageClock(Protocol):
    """Boundaries of passes."""

    def mark(self) -> None:
        """Note a boundary of the running pass."""

    def end_pass(self) -> None:
        """Say that the latest boundary was the last of its pass."""

    def passes_s(self) -> list[list[float]]:
        """Return the intervals of every pass that the device has finished, in order."""


class HostStageClock:
    """Boundaries on the host clock; `synchronize` is called before each, where there is one."""

    def __init__(self, clock: Clock, *, synchronize: Callable[[], None] | None) -> None:
        self._clock = clock
        self._synchronize = synchronize
        self._running_s: list[float] = []
        self._passes_s: list[list[float]] = []

    def mark(self) -> None:
        """Note a boundary."""
        if self._synchronize is not None:
            self._synchronize()
        self._running_s.append(self._clock.now_s())

    def end_pass(self) -> None:
        """Close the pass."""
        times_s = self._running_s
        self._passes_s.append([b - a for a, b in zip(times_s, times_s[1:], strict=False)])
        self._running_s = []

    def passes_s(self) -> list[list[float]]:
        """Return the intervals of all passes."""
        return list(self._passes_s)


class EventStageClock:
    """Boundaries as events on the device's stream; the host does not wait for them."""

    def __init__(self, make_event: Callable[[], DeviceEvent | None]) -> None:
        self._make_event = make_event
        self._running: list[DeviceEvent] = []
        self._queued: deque[list[DeviceEvent]] = deque()
        self._passes_s: list[list[float]] = []

    def mark(self) -> None:
        """Record an event."""
        event = self._make_event()
        assert event is not None, "the device had events a moment ago"
        event.record()
        self._running.append(event)

    def end_pass(self) -> None:
        """Close the pass, and read those that the device has finished."""
        self._queued.append(self._running)
        self._running = []
        self._read()

    def passes_s(self) -> list[list[float]]:
        """Return the intervals of the passes that the device has finished."""
        self._read()
        return list(self._passes_s)

    def _read(self) -> None:
        # An event that has been read is let go: many thousands would weigh on the driver.
        while self._queued and self._queued[0][-1].query():
            events = self._queued.popleft()
            self._passes_s.append(
                [a.elapsed_ms(b) / 1e3 for a, b in zip(events, events[1:], strict=False)]
            )


def stage_clock(adapter: Adapter, *, clock: Clock) -> StageClock:
    """Return the finest honest clock for stages on this device."""
    if not adapter.is_asynchronous:
        return HostStageClock(clock, synchronize=None)
    if adapter.make_event() is None:
        return HostStageClock(clock, synchronize=adapter.synchronize)
    return EventStageClock(adapter.make_event)
