"""What the parent asks of a trial's process, as one JSON document."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from bench.core.nouns import Config
from bench.measure.limits import Limits


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """One trial: what to run, for how long, on which cores."""

    config: Config
    limits: Limits
    trial: int
    cpu_ids: tuple[int, ...]
    """Cores to run on; empty leaves the affinity alone."""
    threads: int
    workers: int
    idle_s: float
    """Time to sit idle with the device context open, for the idle power."""

    def to_json(self) -> str:
        """Serialise for the trial's standard input."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> TrialRequest:
        """Parse what `to_json` made."""
        values = json.loads(text)
        values["config"] = Config(**values["config"])
        values["limits"] = Limits(**values["limits"])
        values["cpu_ids"] = tuple(values["cpu_ids"])
        return TrialRequest(**values)
