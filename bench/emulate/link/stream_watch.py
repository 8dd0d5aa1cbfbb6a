"""Sees which collective the compute stream waits for, where the waiting is done with events.

FSDP calls its collectives inside streams of its own, records an event behind each, and makes the
compute stream wait for that later; the process group hears nothing of it. While a step is recorded,
and only then, the two methods of torch's streams that do this are watched. A version of FSDP that
waits in another way leaves no waits in the trace, and its replay then differs from its step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.emulate.replay.recording import Issued


class StreamWatch:
    """Notes waits of one stream for events behind collectives, between `begin` and `end`."""

    def __init__(self, *, stamp: Callable[[Any], int], stream_class: Any) -> None:
        self._stamp = stamp
        # Methods of torch's own class cannot be replaced; a backend of one stream has no other.
        self._class: Any = None if stream_class is torch.Stream else stream_class
        self._originals: tuple[Any, Any] | None = None
        self._last: dict[Any, Issued] = {}
        self._behind: dict[int, tuple[Any, Issued]] = {}

    def issued_on(self, stream: Any, issued: Issued) -> None:
        """Say that an event recorded on `stream` from now on is behind this collective."""
        self._last[stream] = issued

    def begin(self, lane: Any) -> None:
        """Watch what `lane` waits for."""
        self.end()
        if self._class is None:
            return
        record, wait = self._class.record_event, self._class.wait_event
        self._originals = (record, wait)

        def record_event(stream: Any, event: Any = None) -> Any:
            recorded = record(stream, event)
            if stream in self._last:
                # The event is kept, so that its address is not given to another one.
                self._behind[id(recorded)] = (recorded, self._last[stream])
            return recorded

        def wait_event(stream: Any, event: Any) -> None:
            _, issued = self._behind.get(id(event), (None, None))
            if issued is None or issued.waits or stream != lane:
                wait(stream, event)
                return
            start = self._stamp(stream)
            wait(stream, event)
            issued.waits.append((start, self._stamp(stream)))

        self._class.record_event, self._class.wait_event = record_event, wait_event

    def end(self) -> None:
        """Stop watching."""
        if self._originals is not None:
            self._class.record_event, self._class.wait_event = self._originals
            self._originals = None
        self._last.clear()
        self._behind.clear()
