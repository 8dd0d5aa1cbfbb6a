"""A thread in the parent that watches the device and the processor while a trial runs.

It lives outside the trial's process, so that it neither holds the trial's interpreter lock nor
stops when the trial dies. Ten samples a second are the most: at 25 ms the driver's lock has been
seen to stall the threads that submit work (https://github.com/flightlessmango/MangoHud/issues/2104).
A reading that fails is left out, and what is judged from samples sees the gap; the thread never
raises.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from bench.devices.host.cpu_noise import CpuSnapshot, take_snapshot
from bench.devices.telemetry.common import Sample, Telemetry

PERIOD_S = 0.1
SLOW_PERIOD_S = 0.5
"""Between processor snapshots, and between memory readings."""
_STOP_TIMEOUT_S = 5.0


class Sampler:
    """Collects `samples` and `snapshots` between `start` and `stop`."""

    def __init__(
        self,
        telemetry: Telemetry | None,
        *,
        pid: int,
        snapshot: Callable[[int], CpuSnapshot] = take_snapshot,
    ) -> None:
        self.samples: list[Sample] = []
        self.snapshots: list[CpuSnapshot] = []
        self._pid = pid
        self._telemetry = telemetry
        self._snapshot = snapshot
        self._next_slow_s: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bench-sampler", daemon=True)

    def collect(self, *, is_last: bool = False) -> None:
        """Take one round of readings; the slow ones only when due, at first and at last."""
        now_s = time.monotonic()
        is_slow_due = is_last or self._next_slow_s is None or now_s >= self._next_slow_s
        if is_slow_due:
            self._next_slow_s = now_s + SLOW_PERIOD_S
        if self._telemetry is not None:
            with suppress(Exception):  # whatever a vendor's library raises is a missed sample
                self.samples.append(self._telemetry.sample(with_memory=is_slow_due))
        if is_slow_due:
            with suppress(Exception):  # a vanished process or odd /proc must not end the watch
                self.snapshots.append(self._snapshot(self._pid))

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._stopping.is_set():
            self.collect()
            # A late round is not made up for, and a slow driver gets a rest between two rounds.
            next_s = max(next_s + PERIOD_S, time.monotonic() + PERIOD_S / 2)
            self._stopping.wait(next_s - time.monotonic())
        self.collect(is_last=True)

    def start(self) -> None:
        """Begin; a sampler runs once."""
        self._thread.start()

    def stop(self) -> None:
        """Take a last round and end. A driver that hangs is given up on."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)
