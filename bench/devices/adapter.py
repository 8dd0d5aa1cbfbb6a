"""One adapter shape for every backend: synchronise, record events, read memory.

Everything a trial needs from a device goes through here, so that no other file asks which backend
it runs on. Each accelerator call is wrapped by itself, because vendors implement only a part of
`torch.accelerator`: what is missing gives None, never zero.
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


class Adapter(Protocol):
    """What the harness asks of a device."""

    label: str
    """`cuda:0`."""
    is_asynchronous: bool
    """False where an operation has finished when Python returns (CPU)."""

    def make_current(self) -> None:
        """Make the device this thread's default; a kernel launched on another one may fail."""

    def synchronize(self) -> None:
        """Wait until all queued work is done."""

    def make_event(self) -> DeviceEvent | None:
        """Return a timing event, or None where events are missing or known to be wrong."""

    def reset_peak_memory(self) -> None:
        """Start a new peak for the two torch counters."""

    def peak_allocated_bytes(self) -> int | None:
        """Peak of what tensors occupied, or None."""

    def peak_reserved_bytes(self) -> int | None:
        """Peak of what torch's allocator held, or None."""

    def reserved_bytes(self) -> int | None:
        """What torch's allocator holds now, or None."""

    def used_bytes(self) -> int | None:
        """What is in use on the whole device now, by anyone, or None."""

    def compute_clock_hz(self) -> float | None:
        """Clock of the compute units now, or None."""

    def empty_cache(self) -> None:
        """Hand unused memory of torch's allocator back."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether this exception says that device or host memory ran out."""
