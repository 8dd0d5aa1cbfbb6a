"""Times between the stages of one pass: device events, or the host clock where nothing is queued.

Boundaries are noted while a pass runs and give its intervals afterwards, in seconds. A device that
runs behind the host but has no events is synchronised at each boundary.
"""

from __future__ import annotations

from collections import deque

from bench.devices.torch.adapter import DeviceEvent
from bench.measure.engine.engine import Engine
from bench.measure.timing.clock import Clock


class StageClock:
    """Boundaries of passes, on the finest honest clock of the engine's device."""

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._has_events = engine.is_asynchronous and engine.make_event() is not None
        self._running_s: list[float] = []
        self._running: list[DeviceEvent] = []
        self._queued: deque[list[DeviceEvent]] = deque()
        self._passes_s: list[list[float]] = []

    def mark(self) -> None:
        """Note a boundary of the running pass; where there are events the host does not wait."""
        if self._has_events:
            event = self._engine.make_event()
            assert event is not None, "the device had events a moment ago"
            event.record()
            self._running.append(event)
            return
        if self._engine.is_asynchronous:
            self._engine.synchronize()
        self._running_s.append(self._clock.now_s())

    def end_pass(self) -> None:
        """Close the pass at its latest boundary, and read those that the device has finished."""
        if self._has_events:
            self._queued.append(self._running)
            self._running = []
            self._read()
        else:
            times_s, self._running_s = self._running_s, []
            self._passes_s.append([b - a for a, b in zip(times_s, times_s[1:], strict=False)])

    def passes_s(self) -> list[list[float]]:
        """Return the intervals of every pass that the device has finished, in order."""
        self._read()
        return list(self._passes_s)

    def _read(self) -> None:
        # An event that has been read is let go: many thousands would weigh on the driver.
        while self._queued and self._queued[0][-1].query():
            events = self._queued.popleft()
            self._passes_s.append(
                [a.elapsed_ms(b) / 1e3 for a, b in zip(events, events[1:], strict=False)]
            )
