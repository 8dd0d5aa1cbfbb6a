"""What was measured, as a projection starts from it: one configuration on one device.

Trials of a configuration are taken together by their median. Only one real device is a start: a row
of several devices, or one that was throttled, emulated or simulated, already has a model in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.analysis.projection_roofs import Band, Rate, Roofs
from bench.core.errors import UsageError
from bench.hardware.chips import chip
from bench.hardware.operators import Operators
from bench.results.operator_profiles import StoredProfile
from bench.results.schema import USABLE, Row, Value

_KINDS = {"cpu": "cpu", "cuda": "gpu", "xpu": "gpu", "mps": "gpu"}
"""Kind of chip by torch device type; other accelerators are neural processors."""


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
    """Gather usable rows into configurations; `profiles` by (config_hash, device label)."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    left_out: dict[tuple[str, str], None] = {}
    for row in rows:
        name = str(row["workload"])
        reason = _why_not(row)
        if reason is not None:
            left_out[name, reason] = None
            continue
        key = (name, str(row["config_hash"]), str(row.get("device_name")))
        groups.setdefault(key, []).append(row)
    found = []
    for key, trials in groups.items():
        start = _measured(key, trials, profiles=profiles)
        if isinstance(start, LeftOut):
            left_out[start.workload, start.reason] = None
        else:
            found.append(start)
    return found, [LeftOut(workload=name, reason=reason) for name, reason in left_out]


def _why_not(row: Row) -> str | None:
    if row["status"] not in USABLE:
        return f"no usable trial ({row['status']})"
    if row.get("mode") not in (None, "", "real"):
        return f"{row['mode']}: a projection starts from what was really measured"
    if (_number(row, "device_count") or 1) > 1:
        return "measured on several devices: a projection starts from one"
    if row.get("device_type") == "fake":
        return "the fake device has no roofs"
    return None


def _number(row: Mapping[str, Value], name: str) -> float | None:
    value = row.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0.0 < float(value) < 1e60 else None  # type: ignore[arg-type]


def _median(trials: Sequence[Row], name: str) -> float | None:
    values = [value for row in trials if (value := _number(row, name)) is not None]
    return median(values) if values else None


def _measured(
    key: tuple[str, str, str],
    trials: Sequence[Row],
    *,
    profiles: Mapping[tuple[str, str], StoredProfile],
) -> Measured | LeftOut:
    workload, config_hash, device = key
    first = trials[0]
    steps_ms = [ms for row in trials if (ms := _number(row, "step_median_ms")) is not None]
    items, steps = _median(trials, "items"), _median(trials, "steps")
    roofs = _roofs(first, device, trials)
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
    memory = _median(trials, "mem_alloc_peak_bytes") or _median(trials, "mem_estimate_bytes")
    return Measured(
        workload=workload,
        size=str(first.get("size") or ""),
        config_hash=config_hash,
        dtype=str(first["dtype"]),
        device=device,
        num_trials=len(steps_ms),
        batch=int(_number(first, "batch") or 1),
        step_s=step_s,
        step_spread=max(steps_ms) / min(steps_ms),
        items_per_step=per_step,
        items_unit=str(first.get("items_unit") or "item"),
        roofs=roofs,
        operators=_operators(trials, step_s=step_s, items=per_step, profile=profile),
        has_profile=profile is not None,
        overhead_s=0.0 if profile is None else step_s * (1.0 - profile.covered_frac),
        num_parameters=None
        if (parameters := _median(trials, "num_parameters")) is None
        else int(parameters),
        memory_bytes=memory,
    )


def _roofs(row: Row, device: str, trials: Sequence[Row]) -> Roofs | None:
    flops_per_s = _median(trials, "roof_flops_per_s")
    bytes_per_s = _median(trials, "roof_bytes_per_s")
    if flops_per_s is None or bytes_per_s is None:
        return None
    try:
        found = chip(str(row["chip"])) if row.get("chip") else None
    except UsageError:  # a row of a newer catalogue
        found = None
    basis = "measured here"
    return Roofs(
        name=found.id if found is not None else device,
        kind=_KINDS.get(str(row.get("device_type")), "npu"),
        vendor=None if row.get("device_vendor") is None else str(row["device_vendor"]),
        dtype=str(row["dtype"]),
        chip=found,
        matrix=Rate(per_s=Band(low=flops_per_s, high=flops_per_s), basis=basis),
        memory=Rate(per_s=Band(low=bytes_per_s, high=bytes_per_s), basis=basis),
    )


def _operators(
    trials: Sequence[Row], *, step_s: float, items: float, profile: StoredProfile | None
) -> tuple[Operators, ...]:
    """Profile laid over the measured step, or the row's own work as a single operator."""
    if profile is not None:
        return profile.scaled_to(step_s)
    flops, moved = _median(trials, "flops_per_item"), _median(trials, "bytes_per_item")
    if flops is None and moved is None:
        return ()
    whole = Operators(
        kind="gemm",
        dtype=str(trials[0]["dtype"]),
        calls=0,
        flops=(flops or 0.0) * items,
        bytes=(moved or 0.0) * items,
        least_bytes=(moved or 0.0) * items,
        time_s=step_s,
    )
    return (whole,)


def profiles_beside(paths: Sequence[Path]) -> dict[tuple[str, str], StoredProfile]:
    """Profiles stored beside result files, by (config_hash, device label)."""
    from bench.results.operator_profiles import read_profiles

    found: dict[tuple[str, str], StoredProfile] = {}
    for path in paths:
        found |= read_profiles(path)
    return found
