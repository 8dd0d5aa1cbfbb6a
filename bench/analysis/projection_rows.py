"""What was measured, as a projection starts from it: one configuration on one device.

Trials of a configuration are taken together by their median. Only one real device is a start: a row
of several devices, or one that was throttled, emulated or simulated, already has a model in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.analysis.projection_limited import Limited, limited_of, rate_of, terms_of
from bench.analysis.projection_roofs import Roofs
from bench.analysis.projection_source import source_operators, source_roofs
from bench.analysis.row_figures import median_of, number
from bench.hardware.operators import Operators
from bench.results.operator_profiles import StoredProfile
from bench.results.schema import USABLE, Row

_ALONE = (
    "that stands beside a projection from the whole device, and the files hold no start of the "
    "same configuration on the whole of it"
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One configuration that was measured on one device."""

    workload: str
    """`imaging-train`."""
    size: str
    config_hash: str
    dtype: str
    device: str
    """Name of the device."""
    num_trials: int
    batch: int
    step_s: float
    step_spread: float
    """Slowest trial's median step over the fastest's."""
    items_per_step: float
    items_unit: str
    roofs: Roofs
    operators: tuple[Operators, ...]
    """Of one step; a single one made from the row's own figures where there is no profile."""
    has_profile: bool
    overhead_s: float
    """Part of the step that no operator on the device accounts for; 0 where that is not known."""
    num_parameters: int | None
    memory_bytes: float | None
    """Peak of one step: measured on the device, else estimated."""
    limited: tuple[Limited, ...] = ()
    """The same on less of the same device, where that was measured."""

    @property
    def is_training(self) -> bool:
        """Whether gradients are there to be exchanged between devices."""
        return self.workload.endswith("-train")

    @property
    def throughput_per_s(self) -> float:
        """Items per second."""
        return self.items_per_step / self.step_s


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Rows that are no start for a projection, and why."""

    workload: str
    reason: str


def measured_of(
    rows: Sequence[Row], *, profiles: Mapping[tuple[str, str], StoredProfile]
) -> tuple[list[Measured], list[LeftOut]]:
    """Gather usable rows into configurations; `profiles` by (config_hash, device label).

    Rows of less of a device are no start: they stand beside that of the same configuration.
    """
    left_out: dict[tuple[str, str], None] = {}
    usable = {_ran(row) for row in rows if row["status"] in USABLE}
    groups: dict[tuple[str, str, str], list[Row]] = {}
    limited: list[Row] = []
    for row in rows:
        name, reason = str(row["workload"]), _why_not(row)
        if reason is not None:
            if row["status"] in USABLE or _ran(row) not in usable:
                left_out[name, reason] = None
        elif row.get("chip_limit"):
            limited.append(row)
        else:
            key = (name, str(row["config_hash"]), str(row.get("device_name")))
            groups.setdefault(key, []).append(row)
    beside = limited_of(limited)
    found, started = [], set()
    for key, trials in groups.items():
        terms = terms_of(trials[0])
        start = _measured(key, trials, profiles=profiles, limited=beside.get(terms, ()))
        if isinstance(start, LeftOut):
            left_out[start.workload, start.reason] = None
        else:
            found.append(start)
            started.add(terms)
    for row in limited:
        if terms_of(row) not in started:
            left_out[str(row["workload"]), f"measured on {row['chip_limit']}: {_ALONE}"] = None
    return found, [LeftOut(workload=name, reason=reason) for name, reason in left_out]


def _ran(row: Row) -> tuple[str, str]:
    """What ran where; a trial that died early knows no more of its device than the label."""
    return str(row["config_hash"]), str(row["device"])


def _why_not(row: Row) -> str | None:
    """Why a row says nothing of one real device, whole or limited; None where it does."""
    where = f" on {row['chip_limit']}" if row.get("chip_limit") else ""
    if row["status"] not in USABLE:
        why = f": {row['reasons']}" if row.get("reasons") else ""
        return f"no usable trial{where} ({row['status']}{why})"
    if row.get("mode") not in (None, "", "real"):
        return f"{row['mode']}: a projection starts from what was really measured"
    if (number(row, "device_count") or 1) > 1:
        return "measured on several devices: a projection starts from one"
    if row.get("device_type") == "fake":
        return "the fake device has no roofs"
    if where and rate_of(row) is None:
        return f"no step time was measured{where}"
    return None


def _measured(
    key: tuple[str, str, str],
    trials: Sequence[Row],
    *,
    profiles: Mapping[tuple[str, str], StoredProfile],
    limited: tuple[Limited, ...],
) -> Measured | LeftOut:
    workload, config_hash, device = key
    first = trials[0]
    steps_ms = [ms for row in trials if (ms := number(row, "step_median_ms")) is not None]
    items, steps = median_of(trials, "items"), median_of(trials, "steps")
    roofs = source_roofs(trials, device=device)
    if not steps_ms or items is None or steps is None:
        return LeftOut(workload=workload, reason="no step time was measured")
    if roofs is None:
        return LeftOut(
            workload=workload,
            reason="the device's roof was not measured (smoke profile?): run it again without "
            "--profile smoke",
        )
    step_s, per_step = median(steps_ms) * 1e-3, items / steps
    profile = profiles.get((config_hash, str(first["device"])))
    memory = median_of(trials, "mem_alloc_peak_bytes") or median_of(trials, "mem_estimate_bytes")
    return Measured(
        workload=workload,
        size=str(first.get("size") or ""),
        config_hash=config_hash,
        dtype=str(first["dtype"]),
        device=device,
        num_trials=len(steps_ms),
        batch=int(number(first, "batch") or 1),
        step_s=step_s,
        step_spread=max(steps_ms) / min(steps_ms),
        items_per_step=per_step,
        items_unit=str(first.get("items_unit") or "item"),
        roofs=roofs,
        operators=source_operators(trials, step_s=step_s, items=per_step, profile=profile),
        has_profile=profile is not None,
        overhead_s=0.0 if profile is None else step_s * (1.0 - profile.covered_frac),
        num_parameters=None
        if (parameters := median_of(trials, "num_parameters")) is None
        else int(parameters),
        memory_bytes=memory,
        limited=limited,
    )


def profiles_beside(paths: Sequence[Path]) -> dict[tuple[str, str], StoredProfile]:
    """Profiles stored beside result files, by (config_hash, device label)."""
    from bench.results.operator_profiles import read_profiles

    found: dict[tuple[str, str], StoredProfile] = {}
    for path in paths:
        found |= read_profiles(path)
    return found
