"""All that a run will do: its configurations, with everything that was chosen automatically.

It is stored beside the rows, so that `--resume` goes on with exactly what was begun.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, replace

import msgspec

from bench import discovery
from bench.core.errors import DataError
from bench.core.nouns import Config
from bench.core.paths import user_path
from bench.measure.timing.limits import Limits


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
        """Hash of all that must be equal for two trials to be compared; no hardware, no seed.

        What has a default counts only where it differs: a new flag changes no hash of before.
        """
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
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if value != field.default and field.default is not dataclasses.MISSING:
                is_plain = not dataclasses.is_dataclass(value)
                compared[field.name] = value if is_plain else dataclasses.asdict(value)
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

    @property
    def wants_profiles(self) -> bool:
        """Whether it ends with operators profiled unasked: in no firm budget."""
        return self.profile in ("default", "rigorous") and not self.is_budget_firm

    @staticmethod
    def from_dict(values: object) -> Plan:
        """Read a plan's plain values; `ValueError` for anything else."""
        try:
            plan = msgspec.convert(values, Plan)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        if not plan.planned:
            raise ValueError("no configurations")
        return plan


def shrunk(planned: Planned) -> Planned | None:
    """Return the configuration at half the batch; None where that makes its step no smaller."""
    config = planned.config
    found = discovery.load(config.origin)
    phase = found.phase(config.phase)
    batch = int(config.params["batch"] or 0) // 2
    if batch < 1:
        return None
    workload = discovery.instance(found, size=None, overrides={**config.params, "batch": batch})
    if workload.batch_size(phase) >= planned.batch:
        return None
    return replace(
        planned,
        config=replace(config, params=discovery.parameters(workload)),
        mem_estimate_bytes=workload.memory_bytes(phase, dtype=config.dtype),
        batch=workload.batch_size(phase),
        extra_reasons=tuple(dict.fromkeys((*planned.extra_reasons, "oom_shrunk"))),
    )


def digest_of(data: str | None) -> str:
    """Name the data without its place: a digest of names and sizes of the files."""
    if data in (None, "resident", "generated"):
        return data or "generated"
    root = user_path(str(data), what="--data")
    digest = hashlib.sha256()
    try:
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        for path in files:
            name = path.name if root.is_file() else path.relative_to(root).as_posix()
            digest.update(os.fsencode(f"{name}\0{path.stat().st_size}\0"))
    except OSError as error:
        raise DataError(f"--data {error.filename}: cannot be read: {error.strerror}") from error
    return f"files-{digest.hexdigest()[:12]}"
