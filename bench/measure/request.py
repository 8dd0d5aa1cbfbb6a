"""What the parent asks of a trial's process, as one JSON document."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.nouns import Config, Layout
from bench.measure.limits import Limits


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Read what `dataclasses.asdict` made of a configuration; KeyError or TypeError otherwise."""
    return Config(**{**values, "layout": Layout(**values["layout"])})


def needs_ranks(config: Config) -> bool:
    """Whether the trial is one process for each device, all of them real."""
    layout = config.layout
    is_simulated = config.device == "fake"
    return layout.mode in ("real", "throttled") and layout.devices > 1 and not is_simulated


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
        values["config"] = config_from_dict(values["config"])
        values["limits"] = Limits(**values["limits"])
        values["cpu_ids"] = tuple(values["cpu_ids"])
        return TrialRequest(**values)
