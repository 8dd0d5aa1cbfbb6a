"""Moments of streams by torch's events, for links that are only recorded, on any accelerator.

A recorded link takes no time, so nothing has to be held and no kernel is needed. Where events keep
no time (MPS) each moment waits for the device: its step has then no overlap left to record.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any

from bench.devices.torch.adapter import Adapter, DeviceEvent
from bench.emulate.replay.recording import Resolve


class EventClock:
    """Keeps an event, or a time of the host, for each slot of a step."""

    def __init__(
        self, adapter: Adapter, *, inside: Callable[[Any], AbstractContextManager[Any]]
    ) -> None:
        self._adapter = adapter
        self._inside = inside
        self._marks: dict[int, DeviceEvent | float] = {}

    def stamp(self, slot: int, *, stream: Any) -> None:
        """Note the time at which `stream` gets here."""
        event = self._adapter.make_event()
        if event is None:
            self._adapter.synchronize()
            self._marks[slot] = perf_counter()
            return
        with self._inside(stream):
            event.record()
        self._marks[slot] = event

    def reserve(self, slot: int, *, level: int, duration_s: float, stream: Any) -> None:
        """Note one time as asked, begin and end."""
        assert duration_s == 0, "a recorded link takes no time"
        self.stamp(slot, stream=stream)
        self._marks[slot + 1] = self._marks[slot + 2] = self._marks[slot]

    def hold(self, slot: int, *, units: int, traffic_bytes: float, stream: Any) -> None:
        """Hold nothing: `reserve` took no time."""

    def seconds(self, num_slots: int) -> Resolve:
        """Return what resolves the moments of the step that has ended; the device is through."""
        marks, self._marks = self._marks, {}
        first = marks[0]
        times_s = {slot: _between_s(first, mark) for slot, mark in marks.items()}
        return lambda moment: times_s[int(moment)]

    def take_traffic(self) -> tuple[int, int]:
        """Nothing is moved."""
        return 0, 0


def _between_s(first: DeviceEvent | float, mark: DeviceEvent | float) -> float:
    if isinstance(first, float) or isinstance(mark, float):
        assert isinstance(first, float) and isinstance(mark, float)
        return mark - first
    return first.elapsed_ms(mark) * 1e-3
