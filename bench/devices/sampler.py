"""A thread in the parent that watches the device and the processor while a trial runs.

It lives outside the trial's process, so that it neither holds the trial's interpreter lock nor
stops when the trial dies. Ten samples a second are the most: at 25 ms the driver's lock has been
seen to stall the threads that submit work (https://github.com/flightlessmango/MangoHud/issues/2104).
A reading that fails is kept as a missed one with its reason; the thread itself never raises.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from bench.devices.noise import CpuSnapshot, take_snapshot
from bench.devices.telemetry import Clock, Sample, Telemetry

MIN_PERIOD_S = 0.1
_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Missed:
    """A reading that failed."""

    time_s: float
    what: str
    """telemetry, snapshot or stop."""
    reason: str


class Sampler:
    """Collects `samples`, `snapshots` and `missed` between `start` and `stop`."""

    def __init__(
        self,
        telemetry: Telemetry | None,
        *,
        pid: int,
        period_s: float = MIN_PERIOD_S,
        slow_period_s: float = 0.5,
        clock: Clock = time.monotonic,
        snapshot: Callable[[int], CpuSnapshot] = take_snapshot,
    ) -> None:
        """`slow_period_s` is the time between processor snapshots and between memory readings."""
        if period_s < MIN_PERIOD_S or slow_period_s < period_s:
            raise ValueError(f"periods must be {MIN_PERIOD_S} s or more, the slow one the longer")
        self.pid = pid
        self.samples: list[Sample] = []
        self.snapshots: list[CpuSnapshot] = []
        self.missed: list[Missed] = []
        self._telemetry = telemetry
        self._period_s = period_s
        self._slow_period_s = slow_period_s
        self._clock = clock
        self._snapshot = snapshot
        self._next_slow_s: float | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def collect(self, *, is_last: bool = False) -> None:
        """Take one round of readings; the slow ones only when due, at first and at last."""
        now_s = self._clock()
        is_slow_due = is_last or self._next_slow_s is None or now_s >= self._next_slow_s
        if is_slow_due:
            self._next_slow_s = now_s + self._slow_period_s
        if self._telemetry is not None:
            try:
                self.samples.append(self._telemetry.sample(with_memory=is_slow_due))
            except Exception as error:  # whatever a vendor's library raises is a missed sample
                self._miss("telemetry", time_s=now_s, error=error)
        if is_slow_due:
            try:
                self.snapshots.append(self._snapshot(self.pid))
            except Exception as error:  # a vanished process or odd /proc must not end the watch
                self._miss("snapshot", time_s=now_s, error=error)

    def _miss(self, what: str, *, time_s: float, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        self.missed.append(Missed(time_s=time_s, what=what, reason=reason))

    def _run(self) -> None:
        next_s = self._clock()
        while not self._stopping.is_set():
            self.collect()
            # A late round is not made up for, and a slow driver gets a rest between two rounds.
            next_s = max(next_s + self._period_s, self._clock() + self._period_s / 2)
            self._stopping.wait(next_s - self._clock())
        self.collect(is_last=True)

    def start(self) -> None:
        """Begin; a sampler runs once."""
        if self._thread is not None:
            raise RuntimeError("this sampler was started before")
        self._thread = threading.Thread(target=self._run, name="bench-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last round and end. A driver that hangs is given up on, and noted as missed."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join(_STOP_TIMEOUT_S)
        if self._thread.is_alive():
            error = TimeoutError(f"the last reading took over {_STOP_TIMEOUT_S:.0f} s")
            self._miss("stop", time_s=self._clock(), error=error)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
