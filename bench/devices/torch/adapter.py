"""One adapter shape for every backend: synchronise, record events, read memory.

Everything a trial needs from a device goes through here, so that no other file asks which backend
it runs on. The base class is the adapter of the CPU: operations have finished when Python returns,
and torch counts no memory. What is missing gives None, never zero. torch is not imported here.
"""

from collections.abc import Callable
from typing import Any


class DeviceEvent:
    """A timing event on the stream that its device uses now, whichever device is current."""

    def __init__(self, event: Any, *, current_stream: Callable[[], Any] | None) -> None:
        self._event = event
        self._current_stream = current_stream

    def record(self) -> None:
        """Mark the current end of the stream."""
        streams = () if self._current_stream is None else (self._current_stream(),)
        self._event.record(*streams)

    def query(self) -> bool:
        """Whether the device has passed the mark; does not wait."""
        return bool(self._event.query())

    def synchronize(self) -> None:
        """Wait on the host until the device has passed the mark."""
        self._event.synchronize()

    def elapsed_ms(self, end: Any) -> float:
        """Milliseconds of device time from this mark to `end`; both must have been passed."""
        return float(self._event.elapsed_time(end._event))


class Adapter:
    """What the harness asks of a device, as the CPU answers it."""

    label = "cpu"
    is_asynchronous = False

    def make_current(self) -> None:
        """Make the device this thread's default; a kernel launched on another one may fail."""

    def synchronize(self) -> None:
        """Wait until all queued work is done; errors of that work are raised here."""

    def make_event(self) -> DeviceEvent | None:
        """Return a timing event, or None where events are missing or known to be wrong."""
        return None

    def reset_peak_memory(self) -> None:
        """Start a new peak for the two torch counters."""

    def peak_allocated_bytes(self) -> int | None:
        """Peak of what tensors occupied, or None."""
        return None

    def peak_reserved_bytes(self) -> int | None:
        """Peak of what torch's allocator held, or None."""
        return None

    def reserved_bytes(self) -> int | None:
        """What torch's allocator holds now, or None."""
        return None

    def compute_clock_hz(self) -> float | None:
        """Clock of the compute units now, or None: processors change clocks core by core."""
        return None

    def empty_cache(self) -> None:
        """Hand unused memory of torch's allocator back, where that can be asked for."""
