"""What the timing loops need of whatever does the work.

`TorchEngine` runs a workload on a real device, `FakeEngine` lets simulated time pass. The loops in
`warmup.py` and `window.py` see only this, so they are tested without torch and without waiting.
"""

from dataclasses import dataclass
from typing import Protocol

from bench.devices.adapter import DeviceEvent


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCount:
    """What one step processed."""

    items: int
    elements: int | None
    flops: float | None
    data_wait_s: float
    """Host time spent waiting for the loader."""


class Engine(Protocol):
    """Does one step at a time on a device."""

    is_asynchronous: bool
    """Whether `step` may return before the device has finished."""

    def step(self) -> StepCount:
        """Do one step, or queue it; never times, prints or synchronises."""

    def begin_window(self) -> None:
        """Forget what was noted of the warm-up: from here on it counts. Raises `BenchError`."""

    def synchronize(self) -> None:
        """Wait until everything queued has finished."""

    def make_event(self) -> DeviceEvent | None:
        """Return a device timing event, or None where there are none to be trusted."""

    def recompiles(self) -> int | None:
        """Graphs that torch.compile has made so far; None when it is off."""

    def reserved_bytes(self) -> int | None:
        """What the device allocator holds now."""

    def compute_clock_hz(self) -> float | None:
        """Compute clock now, where it can be read."""
