"""Engines for tests of the timing loops: simulated time, one synchronous and one with a queue."""

from collections.abc import Callable

from bench.devices.torch.adapter import Adapter
from bench.measure.engine.engine import Engine, StepCount
from bench.measure.timing.clock import FakeClock

ONE_ITEM = StepCount(items=2, elements=None, flops=None, data_wait_s=0.0)


class SynchronousEngine(Engine, Adapter):
    """A CPU, engine and adapter in one: a step has passed when it returns."""

    def __init__(self, step_s: Callable[[int], float], *, clock: FakeClock | None = None) -> None:
        self.adapter = self
        self.clock = clock or FakeClock()
        self._step_s = step_s
        self.num_steps = 0
        self.graphs: int | None = None
        self.reserved: int | None = None
        self.clock_hz: float | None = None

    def step(self) -> StepCount:
        self.clock.advance(self._step_s(self.num_steps))
        self.num_steps += 1
        return ONE_ITEM

    def recompiles(self) -> int | None:
        return self.graphs

    def reserved_bytes(self) -> int | None:
        return self.reserved

    def compute_clock_hz(self) -> float | None:
        return self.clock_hz


class MixedEngine(SynchronousEngine):
    """Volumes of several sizes in turn, each taking its own time."""

    def __init__(self, round_s: list[float]) -> None:
        super().__init__(lambda index: round_s[index % len(round_s)])
        self._counts = [
            StepCount(items=1, elements=round(1000 * step_s), flops=None) for step_s in round_s
        ]
        self.round_steps = len(round_s)

    def step(self) -> StepCount:
        count = self._counts[self.num_steps % self.round_steps]
        super().step()
        return count


class QueueEngine(SynchronousEngine):
    """An accelerator: the host queues a step in `host_s`, the device works it off in its time."""

    is_asynchronous = True

    has_events = True
    blocks = False
    """A step begins with a wait for the one before, as a blocking copy does."""

    def __init__(self, step_s: Callable[[int], float], *, host_s: float) -> None:
        super().__init__(step_s)
        self._host_s = host_s
        self.device_free_at_s = self.clock.now_s()
        self.ends_s: list[float] = []
        self.deepest_queue = 0
        self.num_synchronizations = 0
        self.num_live_events = 0

    def step(self) -> StepCount:
        if self.blocks:
            self.wait_until(self.device_free_at_s)
        start_s = max(self.device_free_at_s, self.clock.now_s())
        self.clock.advance(self._host_s)
        # Its first kernel may run while the host queues the others, its last one may not.
        self.device_free_at_s = max(start_s + self._step_s(self.num_steps), self.clock.now_s())
        self.num_steps += 1
        self.ends_s.append(self.device_free_at_s)
        queued = sum(1 for end_s in self.ends_s[-200:] if end_s > self.clock.now_s())
        self.deepest_queue = max(self.deepest_queue, queued)
        return ONE_ITEM

    def wait_until(self, time_s: float) -> None:
        self.clock.advance(max(0.0, time_s - self.clock.now_s()))

    def synchronize(self) -> None:
        self.num_synchronizations += 1
        self.wait_until(self.device_free_at_s)

    def make_event(self) -> "Event | None":  # type: ignore[override]
        return Event(self) if self.has_events else None


class Event:
    """A mark in the queue of a `QueueEngine`."""

    def __init__(self, engine: QueueEngine) -> None:
        self._engine = engine
        self.at_s = float("nan")
        engine.num_live_events += 1

    def __del__(self) -> None:
        self._engine.num_live_events -= 1

    def record(self) -> None:
        self.at_s = max(self._engine.device_free_at_s, self._engine.clock.now_s())

    def query(self) -> bool:
        return self.at_s <= self._engine.clock.now_s()

    def synchronize(self) -> None:
        self._engine.wait_until(self.at_s)

    def elapsed_ms(self, end: "Event") -> float:
        assert self.query() and end.query(), "both must have been passed"
        return (end.at_s - self.at_s) * 1e3


def in_turn(*times_s: float) -> Callable[[int], float]:
    """Step times one after the other, the last one for ever."""
    return lambda index: times_s[min(index, len(times_s) - 1)]
