"""What the user asked for, and which trials that makes.

A request is the flags, checked; a plan is the configurations they expand to, with everything that
was chosen automatically written down. The plan is stored beside the rows, so that `--resume` goes
on with exactly what was begun.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.core.nouns import Config, Layout
from bench.measure.limits import PROFILES, Limits, Profile
from bench.measure.request import config_from_dict
from bench.run.layouts import LayoutFlags


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The flags of `bench run`. Lists are sweeps; empty means the harness chooses."""

    workloads: tuple[str, ...]
    sizes: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    settings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_compiled: bool = False
    channels_last: bool = False
    data: str | None = None
    """None for generated data, 'resident', or a path."""
    device: str | None = None
    threads: int | None = None
    workers: int | None = None
    profile: str = "default"
    trials: int | None = None
    budget_s: float | None = None
    timeout_s: float = 900.0
    seed: int = 0
    oom_shrink: bool = False
    chip_limit: str | None = None
    spread: LayoutFlags = LayoutFlags()
    """Several devices and the link between them."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One configuration of a plan."""

    config: Config
    size_choice: str
    mem_estimate_bytes: int | None
    batch: int
    """Samples in one step of this phase."""
    items_unit: str
    elements_unit: str | None
    data_digest: str
    """What the row says about the data: 'generated', 'resident' or a digest of the files."""
    extra_reasons: tuple[str, ...] = ()
    """Reason codes that every row of this configuration carries."""
    refusal: tuple[str, str] | None = None
    """(reason code, detail) when it cannot run here at all."""

    @property
    def config_hash(self) -> str:
        """Hash of all that must be equal for two trials to be compared; no hardware, no seed."""
        config = self.config
        compared = {
            "workload": config.name,
            "version": config.version,
            "params": dict(config.params),
            "dtype": config.dtype,
            "compile": config.compile,
            "channels_last": config.channels_last,
            "data": self.data_digest,
            "mode": "simulated" if config.device == "fake" else config.layout.mode,
        }
        if config.chip_limit:
            compared["chip_limit"] = config.chip_limit
        if config.layout != Layout():
            compared["layout"] = dataclasses.asdict(config.layout)
        text = json.dumps(compared, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a run will do."""

    planned: tuple[Planned, ...]
    profile: str
    min_trials: int
    max_trials: int
    limits: Limits
    target_half_width_frac: float
    budget_s: float
    """For the whole run; trials beyond the minimum are not begun when it is used up."""
    is_budget_firm: bool
    """True when the user set it: then not even the minimum exceeds it."""
    timeout_s: float
    seed: int
    oom_shrink: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the run's sidecar."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Plan:
        """Read what `to_dict` made; raises KeyError or TypeError on anything else."""
        planned = []
        for entry in values["planned"]:
            entry = dict(entry)
            entry["config"] = config_from_dict(entry["config"])
            entry["extra_reasons"] = tuple(entry["extra_reasons"])
            entry["refusal"] = tuple(entry["refusal"]) if entry["refusal"] else None
            planned.append(Planned(**entry))
        rest = {key: value for key, value in values.items() if key not in ("planned", "limits")}
        return Plan(planned=tuple(planned), limits=Limits(**values["limits"]), **rest)


def profile_of(request: RunRequest) -> Profile:
    """Return the profile with `--trials` applied; the name was checked before."""
    profile = PROFILES[request.profile]
    if request.trials is None:
        return profile
    return dataclasses.replace(profile, min_trials=request.trials, max_trials=request.trials)
