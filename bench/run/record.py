"""From an outcome and what was observed beside it to one row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.core.nouns import Chip, Layout
from bench.devices.conditions import Conditions, violations_s, window_conditions
from bench.devices.energy import window_energy
from bench.devices.noise import cpu_noise
from bench.devices.sampler import Sampler
from bench.devices.telemetry import Baseline, Sample
from bench.hardware.chip_limit import parse_chip_limit
from bench.measure import validity
from bench.measure.inspection import Inspection
from bench.results.schema import Row
from bench.run.launch import Outcome
from bench.run.request import Planned


@dataclass(kw_only=True)
class Observation:
    """What the parent saw while the trial ran."""

    sampler: Sampler | None = None
    scope: str = ""
    before: Baseline | None = None
    after: Baseline | None = None
    stage_times_s: dict[str, float] = field(default_factory=dict)
    """Monotonic time at which each stage began."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What all rows of a run share."""

    inspection: Inspection
    chips: tuple[Chip, ...]
    """Catalogue rows that the device may be."""
    environment_columns: Row
    usable_cores: int

    @property
    def chip(self) -> Chip | None:
        """The catalogue row, when exactly one matches."""
        return self.chips[0] if len(self.chips) == 1 else None


def make_row(
    planned: Planned,
    *,
    facts: Facts,
    trial: int,
    attempt: int,
    started_utc: str,
    threads: int,
    workers: int,
    outcome: Outcome,
    observation: Observation,
) -> Row:
    """Build the row of one trial; a figure that was not measured has no cell."""
    row = _identity(planned, facts=facts)
    row |= {"trial": trial, "attempt": attempt, "started_utc": started_utc}
    row |= {"threads": threads, "workers": workers}
    row |= {"rss_peak_bytes": outcome.rss_peak_bytes}
    reasons = list(planned.extra_reasons)
    detail = outcome.failure_detail
    if outcome.failure_code is not None:
        reasons.append(outcome.failure_code)
    if outcome.result is not None:
        row |= outcome.result["row"]
        reasons += outcome.result["reasons"]
        detail = outcome.result["detail"]
        row |= _work_columns(row, planned, facts=facts)
        observed, observed_reasons = _observed(
            row,
            outcome.result,
            observation,
            facts=facts,
            has_energy=_has_energy(planned.config.layout, facts.inspection),
        )
        if planned.config.layout.strategy == "pp":
            # One device held every stage: no device of the layout would need as much.
            observed.pop("mem_device_peak_bytes", None)
        row |= observed
        reasons += observed_reasons
    unique = list(dict.fromkeys(reasons))
    row["status"] = validity.status_of(unique)
    row["reasons"] = ";".join(unique) or None
    row["detail"] = detail or None
    return {key: value for key, value in row.items() if value is not None}


def _identity(planned: Planned, *, facts: Facts) -> Row:
    config, device = planned.config, facts.inspection.device
    uuid_hash = hashlib.sha256(device.uuid.encode()).hexdigest()[:16] if device.uuid else None
    return {
        **facts.environment_columns,
        "workload": config.name,
        "workload_version": config.version,
        "scenario": "closed_loop",
        "size": config.size or None,
        "size_choice": planned.size_choice,
        "config_hash": planned.config_hash,
        "params_json": json.dumps(dict(config.params), sort_keys=True, separators=(",", ":")),
        "seed": config.seed,
        "dtype": config.dtype,
        "data": planned.data_digest,
        "mode": "simulated" if device.type == "fake" else config.layout.mode,
        **layout_columns(config.layout),
        "compile": config.compile,
        "channels_last": config.channels_last,
        "batch": planned.batch,
        "device": device.label,
        "device_type": device.type,
        "device_name": device.name,
        "device_vendor": device.vendor,
        "device_stack": device.stack,
        "device_uuid_hash": uuid_hash,
        "device_count": config.layout.devices,
        "device_memory_bytes": device.memory_bytes,
        "chip_limit": parse_chip_limit(config.chip_limit).label() if config.chip_limit else None,
        "chip": facts.chip.id if facts.chip else None,
        "cpu_cores_usable": facts.usable_cores,
        "items_unit": planned.items_unit,
        "elements_unit": planned.elements_unit,
        "mem_estimate_bytes": planned.mem_estimate_bytes,
    }


def layout_columns(layout: Layout) -> Row:
    """Return the columns that say how the work was spread; none on one device."""
    if layout.is_single:
        return {"grad_accum": layout.grad_accum} if layout.grad_accum > 1 else {}
    kinds = (("pp", layout.pipeline), ("tp", layout.tensor), ("dp", layout.data))
    return {
        "link": layout.link or None,
        "parallel": layout.strategy,
        "layout": " x ".join(f"{kind}{count}" for kind, count in kinds if count > 1) or None,
        "schedule": layout.schedule if layout.pipeline > 1 else None,
        "mitigation": layout.mitigate or None,
        "bucket_bytes": layout.bucket_bytes if layout.strategy == "ddp" else None,
        "grad_accum": layout.grad_accum,
    }


def _work_columns(row: Row, planned: Planned, *, facts: Facts) -> Row:
    """Achieved FLOP/s, and its share of the datasheet peak and of the measured roof."""
    inspection, dtype = facts.inspection, planned.config.dtype
    if planned.config.chip_limit:
        return _achieved(row)  # peaks and roofs are those of the whole device
    roof = inspection.roof_flops_per_s.get(dtype)
    peak = facts.chip.peak_per_s.get(dtype) if facts.chip else None
    columns: Row = {
        "peak_flops_per_s": peak,
        "peak_source": f"catalogue: {facts.chip.id}" if facts.chip and peak else None,
        "roof_flops_per_s": roof,
        "roof_bytes_per_s": inspection.roof_bytes_per_s,
        "roof_source": inspection.roof_source,
    }
    columns |= _achieved(row)
    achieved = columns.get("achieved_flops_per_s")
    if isinstance(achieved, float):
        own = achieved / _devices_of(planned, inspection)
        columns["mfu_frac"] = own / peak if peak else None
        columns["roof_frac"] = own / roof if roof else None
    return columns


def _achieved(row: Row) -> Row:
    per_item, throughput = row.get("flops_per_item"), row.get("throughput_per_s")
    if isinstance(per_item, float) and isinstance(throughput, float):
        return {"achieved_flops_per_s": per_item * throughput}
    return {}


def _has_energy(layout: Layout, inspection: Inspection) -> bool:
    """Whether the power that was sampled is that of the row's window, all its devices counted."""
    if layout.mode == "simulated":
        return False  # the window that was sampled had no communication in it
    is_virtual = layout.mode == "emulated"
    return layout.devices == 1 or is_virtual or not inspection.is_accelerator


def _devices_of(planned: Planned, inspection: Inspection) -> int:
    """Devices of the kind that peak and roof are for; real ranks on a CPU share one."""
    layout = planned.config.layout
    is_shared = layout.mode in ("real", "throttled") and not inspection.is_accelerator
    return 1 if is_shared else layout.devices


def _observed(
    row: Row, result: Any, observation: Observation, *, facts: Facts, has_energy: bool
) -> tuple[Row, list[str]]:
    """Energy, conditions and noise of the window, and the reasons that follow from them."""
    if observation.sampler is None:
        return {}, []
    start_s, end_s = float(result["window_start_s"]), float(result["window_end_s"])
    samples = observation.sampler.samples
    noise = cpu_noise(
        observation.sampler.snapshots, start_s=start_s, end_s=end_s, num_cores=facts.usable_cores
    )
    columns: Row = {
        "own_cpu_frac": noise.own_cpu_frac,
        "foreign_cpu_frac": noise.foreign_cpu_frac,
        "steal_frac": noise.steal_frac,
        "involuntary_switches_per_s": noise.involuntary_switches_per_s,
        "major_faults_per_s": noise.major_faults_per_s,
    }
    reasons: list[str] = []
    if "smoke" not in result["reasons"]:
        reasons += validity.cpu_reasons(
            foreign_frac=noise.foreign_cpu_frac, steal_frac=noise.steal_frac
        )
    if samples:
        if has_energy:
            columns |= _energy_columns(row, samples, observation, start_s=start_s, end_s=end_s)
            reasons += ["energy_unvalidated"] if columns.pop("_unvalidated", False) else []
        conditions = window_conditions(samples, start_s=start_s, end_s=end_s)
        columns |= {
            "temp_start_c": conditions.temp_start_c,
            "temp_max_c": conditions.temp_max_c,
            "sm_clock_mean_hz": conditions.sm_clock_mean_hz,
            "sm_clock_min_hz": conditions.sm_clock_min_hz,
            "throttle_frac": conditions.throttle_frac,
            "power_limited_frac": conditions.power_limited_frac,
            "throttle_reasons": ";".join(conditions.throttle_reasons) or None,
        }
        reasons += _throttle_reasons(conditions, observation, window_s=end_s - start_s)
    device_columns, device_reasons = _device_columns(samples, observation)
    return columns | device_columns, reasons + device_reasons


def _throttle_reasons(
    conditions: Conditions, observation: Observation, *, window_s: float
) -> list[str]:
    """Judge slow-downs from the samples, and from the driver's counters of what they missed."""
    limit = validity.THROTTLE_INVALID_FRAC
    if (conditions.power_brake_frac or 0.0) > limit:
        return ["power_brake"]
    limited_s: Mapping[str, float] = {}
    if observation.before is not None and observation.after is not None:
        limited_s = violations_s(observation.before, after=observation.after)
    is_hot = limited_s.get("thermal", 0.0) > limit * window_s
    return ["thermal_throttle"] if is_hot or (conditions.throttle_frac or 0.0) > limit else []


def _energy_columns(
    row: Row,
    samples: list[Sample],
    observation: Observation,
    *,
    start_s: float,
    end_s: float,
) -> Row:
    energy = window_energy(
        samples,
        start_s=start_s,
        end_s=end_s,
        idle_power_w=idle_power_w(samples, observation.stage_times_s),
        scope=observation.scope,
    )
    items = row.get("items")
    # What was sampled is one device; the items of several are not its own.
    is_single = row.get("parallel") is None
    per_item = (
        energy.energy_j / items
        if is_single and energy.energy_j is not None and isinstance(items, int) and items
        else None
    )
    return {
        "energy_j": energy.energy_j,
        "energy_per_item_j": per_item,
        "energy_net_j": energy.energy_net_j,
        "energy_integrated_j": energy.energy_integrated_j,
        "energy_source": energy.energy_source,
        "energy_scope": energy.energy_scope,
        "power_mean_w": energy.power_mean_w,
        "idle_power_w": energy.idle_power_w,
        "_unvalidated": energy.is_unvalidated,
    }


def idle_power_w(samples: list[Sample], stage_times_s: dict[str, float]) -> float | None:
    """Mean power while the trial sat idle with its context open; None when it did not."""
    start_s, end_s = stage_times_s.get("idle"), stage_times_s.get("check")
    if start_s is None or end_s is None:
        return None
    # The first second still has the context's creation in it.
    return window_energy(
        samples, start_s=start_s + 1.0, end_s=end_s, idle_power_w=None, scope=""
    ).power_mean_w


def _device_columns(samples: list[Sample], observation: Observation) -> tuple[Row, list[str]]:
    """What changed on the device between before and after, and whether others used it."""
    before, after = observation.before, observation.after
    if before is None:
        return {}, []
    used_bytes = [one.used_bytes for one in samples if one.used_bytes is not None]
    columns: Row = {"power_limit_w": before.power_limit_w, "driver_version": before.driver_version}
    reasons: list[str] = []
    if used_bytes and before.used_bytes is not None:
        grown_bytes = max(used_bytes) - before.used_bytes
        # Others gave memory back meanwhile: what the trial took cannot be told.
        columns["mem_device_peak_bytes"] = grown_bytes if grown_bytes > 0 else None
    is_busy = (before.utilization_frac or 0.0) > validity.FOREIGN_GPU_FRAC
    if (before.used_bytes or 0) > validity.FOREIGN_GPU_BYTES or is_busy:
        reasons.append("foreign_gpu")
    if after is None:
        return columns, reasons
    if before.ecc_uncorrected is not None and after.ecc_uncorrected is not None:
        errors = after.ecc_uncorrected - before.ecc_uncorrected
        columns["ecc_uncorrected"] = errors
        reasons += ["ecc"] if errors > 0 else []
    if before.power_limit_w != after.power_limit_w:
        reasons.append("device_changed")
    return columns, reasons
