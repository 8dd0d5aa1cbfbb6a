"""The fake device: a workload's steps take simulated time, so that no test has to wait.

A step takes `Workload.simulated_step_s`, times a factor drawn once for each trial (2 % between
processes) and one drawn for each step (1 %), from the seed and the trial's number. Nothing is
computed and torch is not imported. Rows say device_type fake and mode simulated.
"""

from __future__ import annotations

import math
import random

from bench import discovery
from bench.measure.engine.engine import Engine, StepCount, counted
from bench.measure.messages import TrialRequest
from bench.measure.timing.clock import FakeClock

BETWEEN_PROCESSES_SD = 0.02
BETWEEN_STEPS_SD = 0.01


class FakeEngine(Engine):
    """Advances a fake clock by a plausible step time."""

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
        return counted(self.workload, self.phase, None)
