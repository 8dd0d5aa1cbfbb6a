"""What the timing loops need of whatever does the work.

`TorchEngine` runs a workload on a real device, `FakeEngine` lets simulated time pass. The loops in
`warmup.py` and `window.py` see only this, so they are tested without torch and without waiting.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bench import discovery
from bench.core.nouns import DTYPE_BYTES, Dtype, Layout
from bench.devices.torch.adapter import Adapter
from bench.measure.messages import TrialRequest
from bench.measure.timing.clock import Clock, FakeClock
from bench.workload import Phase, Workload, number_of

BETWEEN_PROCESSES_SD = 0.02
BETWEEN_STEPS_SD = 0.01
"""On the fake device: log of the factors of a step's time."""
_HELD = ("items", "elements", "flops", "least_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCount:
    """What one step processed; FLOPs are None where the workload does not say them."""

    items: int
    elements: int | None
    flops: float | None
    least_bytes: float | None = None
    """Least memory traffic by the workload's formula."""
    data_wait_s: float = 0.0
    """Host time spent waiting for the loader."""

    def times(self, number: int) -> StepCount:
        """Return what so many alike processed together."""
        held = {name: getattr(self, name) for name in _HELD}
        return replace(self, **{name: value and value * number for name, value in held.items()})


def counted(workload: Workload, phase: Phase, collated: Any, *, dtype: Dtype) -> StepCount:
    """Return what a collated batch holds, and by formula comes to; None is a generated one."""
    items = int(number_of(workload.items(phase, collated), method="items", least=1))
    sized = workload if collated is None else workload.sized_as(phase, collated)

    def of_items(answer: Any, *, method: str) -> float | None:
        return None if answer is None else number_of(answer, method=method) * items

    bytes_each = sized.bytes_per_item(phase, dtype_bytes=DTYPE_BYTES[dtype])
    return StepCount(
        items=items,
        elements=workload.elements(phase, collated),
        flops=of_items(workload.flops_per_item(phase, collated), method="flops_per_item"),
        least_bytes=of_items(bytes_each, method="bytes_per_item"),
    )


def summed(counts: Sequence[StepCount]) -> StepCount:
    """Return what several batches hold together; None where one does not say it."""

    def total(figure: str) -> Any:
        figures = [getattr(count, figure) for count in counts]
        return None if None in figures else sum(figures)

    return StepCount(
        **{name: total(name) for name in _HELD},
        data_wait_s=total("data_wait_s"),
    )


class StepsEndedError(Exception):
    """Thrown into a loop when there will be no further step: a window ends with what it has."""


T = TypeVar("T")
Stepping = Generator[None, StepCount | None, T]
"""A loop that is sent what each step processed, None for one that does not count as a step."""


class Engine(ABC):
    """Does one step at a time on a device; by itself on one that is synchronous and shows nothing.

    Where `adapter.is_asynchronous`, `step` may return before the device has finished.
    """

    adapter = Adapter()
    clock = Clock()
    round_steps = 1
    """Steps that go once through data whose items differ in size."""
    period_steps = 1
    """Steps after which communication repeats itself: a window holds whole periods."""
    layout = Layout()
    link: Any = None
    """The `ModelledLink` that it steps over, where there is one."""
    overlap = ""
    """How communication and compute overlap, in words; '' where nothing is said."""
    resident: Sequence[StepCount] = ()
    """What each batch holds that lies on the device; none where a loader brings them."""

    @abstractmethod
    def step(self) -> StepCount:
        """Do one step, or queue it; never times, prints or synchronises."""

    def drive(self, loop: Stepping[T]) -> T:
        """Do each step that the loop asks for, and return what it came to."""
        next(loop)
        try:
            while True:
                loop.send(self.step())
        except StopIteration as ended:
            result: T = ended.value
            return result

    def begin_window(self) -> None:  # noqa: B027  (most have nothing to forget)
        """Forget what was noted of the warm-up: from here on it counts. Raises `BenchError`."""

    def recompiles(self) -> int | None:
        """Graphs that torch.compile has made so far; None when it is off."""
        return None


class FakeEngine(Engine):
    """The fake device: a workload's steps take simulated time, so that no test has to wait.

    A step takes `Workload.simulated_step_s`, times a factor drawn once for each trial and one drawn
    for each step, from the seed and the trial's number. Nothing is computed, torch is not imported.
    """

    def __init__(self, request: TrialRequest) -> None:
        self.clock: FakeClock = FakeClock()
        self.config = config = request.config
        found = discovery.load_planned(config.origin, version=config.version)
        self.phase = found.phase(config.phase)
        self.workload = discovery.instance(found, size=None, overrides=dict(config.params))
        self._random = random.Random(f"{config.seed}/{config.name}/{request.trial}")
        self._process_factor = math.exp(self._random.gauss(0.0, BETWEEN_PROCESSES_SD))

    def step(self) -> StepCount:
        """Let one step's time pass."""
        factor = self._process_factor * math.exp(self._random.gauss(0.0, BETWEEN_STEPS_SD))
        step_s = self.workload.simulated_step_s(self.phase)
        if not 0 < step_s < math.inf:
            raise ValueError(f"simulated_step_s must be a time, not {step_s}")
        self.clock.advance(step_s * factor)
        return counted(self.workload, self.phase, None, dtype=self.config.dtype)
