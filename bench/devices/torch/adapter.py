"""One adapter shape for every backend: synchronise, record events, read memory.

Everything a trial needs from a device goes through here, so that no other file asks which backend
it runs on. The base class is the adapter of the CPU: operations have finished when Python returns,
and torch counts no memory. What is missing gives None, never zero. torch is not imported here.
"""

from typing import Any, Protocol


class DeviceEvent(Protocol):
    """A point in a device's stream."""

    def record(self) -> None:
        """Mark the current end of the stream."""

    def query(self) -> bool:
        """Whether the device has passed the mark; does not wait."""

    def synchronize(self) -> None:
        """Wait on the host until the device has passed the mark."""

    def elapsed_ms(self, end: Any) -> float:
        """Milliseconds of device time from this mark to `end`; both must have been passed."""


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
