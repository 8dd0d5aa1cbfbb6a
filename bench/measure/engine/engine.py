"""What the timing loops need of whatever does the work.

`TorchEngine` runs a workload on a real device, `FakeEngine` lets simulated time pass. The loops in
`warmup.py` and `window.py` see only this, so they are tested without torch and without waiting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.devices.torch.adapter import DeviceEvent
from bench.workload import Phase, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCount:
    """What one step processed; FLOPs are None where the workload does not say them."""

    items: int
    elements: int | None
    flops: float | None
    data_wait_s: float = 0.0
    """Host time spent waiting for the loader."""

    def times(self, number: int) -> StepCount:
        """Return what so many alike processed together."""
        return replace(
            self,
            items=self.items * number,
            elements=None if self.elements is None else self.elements * number,
            flops=None if self.flops is None else self.flops * number,
        )


def counted(workload: Workload, phase: Phase, collated: Any) -> StepCount:
    """Return what a collated batch holds."""
    items = workload.items(phase, collated)
    per_item = workload.flops_per_item(phase, collated)
    return StepCount(
        items=items,
        elements=workload.elements(phase, collated),
        flops=None if per_item is None else per_item * items,
    )


def summed(counts: Sequence[StepCount]) -> StepCount:
    """Return what the micro-batches of one step hold together."""
    elements = [count.elements for count in counts if count.elements is not None]
    flops = [count.flops for count in counts if count.flops is not None]
    return StepCount(
        items=sum(count.items for count in counts),
        elements=sum(elements) if len(elements) == len(counts) else None,
        flops=sum(flops) if len(flops) == len(counts) else None,
        data_wait_s=sum(count.data_wait_s for count in counts),
    )


class Engine(ABC):
    """Does one step at a time on a device; by itself on one that is synchronous and shows nothing.

    `is_asynchronous` is whether `step` may return before the device has finished.
    """

    is_asynchronous = False

    @abstractmethod
    def step(self) -> StepCount:
        """Do one step, or queue it; never times, prints or synchronises."""

    def begin_window(self) -> None:  # noqa: B027  (most have nothing to forget)
        """Forget what was noted of the warm-up: from here on it counts. Raises `BenchError`."""

    def synchronize(self) -> None:  # noqa: B027
        """Wait until everything queued has finished."""

    def make_event(self) -> DeviceEvent | None:
        """Return a device timing event, or None where there are none to be trusted."""
        return None

    def recompiles(self) -> int | None:
        """Graphs that torch.compile has made so far; None when it is off."""
        return None

    def reserved_bytes(self) -> int | None:
        """What the device allocator holds now."""
        return None

    def compute_clock_hz(self) -> float | None:
        """Compute clock now, where it can be read."""
        return None
