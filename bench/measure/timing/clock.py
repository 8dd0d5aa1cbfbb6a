"""The only place that reads the time for a measurement."""

import time


class Clock:
    """Seconds that never go backwards, since an origin shared by all processes of the machine."""

    def now_s(self) -> float:
        """Return the performance counter: on Linux and macOS the monotonic clock."""
        return time.perf_counter()


class FakeClock(Clock):
    """Simulated time: it moves only on request, so that nothing has to be waited for."""

    def __init__(self) -> None:
        self._now_s = 1000.0

    def now_s(self) -> float:
        """Return the simulated time."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let simulated time pass."""
        assert seconds >= 0
        self._now_s += seconds
