"""The only place that reads the time for a measurement.

`HostClock` is the monotonic performance counter; `FakeClock` moves only on request, so that the
whole program can be tested without waiting.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that never go backwards."""

    def now_s(self) -> float:
        """Seconds since an arbitrary origin, shared by all processes of the machine."""


class HostClock:
    """`time.monotonic` at `perf_counter` resolution: on Linux and macOS they are one clock."""

    def now_s(self) -> float:
        """Return the host's monotonic time."""
        return time.perf_counter()


class FakeClock:
    """Simulated time."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now_s = start_s

    def now_s(self) -> float:
        """Return the simulated time."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let simulated time pass; `ValueError` if it would go backwards."""
        if not seconds >= 0:
            raise ValueError(f"time cannot advance by {seconds}")
        self._now_s += seconds
