"""The fake device: a workload's steps take simulated time, so that no test has to wait.

A step takes `Workload.simulated_step_s`, times a factor drawn once for each trial (2 % between
processes) and one drawn for each step (1 %), from the seed and the trial's number. Nothing is
computed and torch is not imported. Rows say device_type fake and mode simulated.
"""

from __future__ import annotations

import math
import random

from bench import discovery
from bench.devices.adapter import DeviceEvent
from bench.measure.clock import FakeClock
from bench.measure.engine import StepCount
from bench.measure.messages import TrialRequest

BETWEEN_PROCESSES_SD = 0.02
BETWEEN_STEPS_SD = 0.01


class FakeEngine:
    """Advances a fake clock by a plausible step time."""

    is_asynchronous = False

    def __init__(self, request: TrialRequest, *, clock: FakeClock) -> None:
        config = request.config
        found = discovery.load_planned(config.origin, version=config.version)
        self.phase = found.phase(config.phase)
        self.workload = discovery.instance(found, size=None, overrides=dict(config.params))
        self._clock = clock
        self._random = random.Random(f"{config.seed}/{config.name}/{request.trial}")
        self._process_factor = math.exp(self._random.gauss(0.0, BETWEEN_PROCESSES_SD))

    def step(self) -> StepCount:
        """Let one step's time pass."""
        factor = self._process_factor * math.exp(self._random.gauss(0.0, BETWEEN_STEPS_SD))
        step_s = self.workload.simulated_step_s(self.phase)
        if not 0 < step_s < math.inf:
            raise ValueError(f"simulated_step_s must be a time, not {step_s}")
        self._clock.advance(step_s * factor)
        items = self.workload.items(self.phase, None)
        per_item = self.workload.flops_per_item(self.phase)
        return StepCount(
            items=items,
            elements=self.workload.elements(self.phase, None),
            flops=None if per_item is None else per_item * items,
            data_wait_s=0.0,
        )

    def begin_window(self) -> None:
        """Nothing is noted of the warm-up."""

    def synchronize(self) -> None:
        """Nothing is queued."""

    def make_event(self) -> DeviceEvent | None:
        """There are no events: simulated steps are synchronous."""
        return None

    def recompiles(self) -> int | None:
        """Nothing is compiled."""
        return None

    def reserved_bytes(self) -> int | None:
        """No memory is held."""
        return None

    def compute_clock_hz(self) -> float | None:
        """There is no clock to read."""
        return None
