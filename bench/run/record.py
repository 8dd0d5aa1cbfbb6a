"""What a trial's process is asked, and from its outcome and what was observed beside it to one row.

What ran and where is put down here, and how much of the device's peak and roof was reached. The
trial's own columns come with the outcome, those of heat, power and noise from
`bench.run.launching.observation`. A figure that was not measured has no cell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from bench.core.nouns import Chip, Config, Layout, Scalar, Serving
from bench.devices.host import cpu
from bench.hardware.chip_limit import parse_chip_limit
from bench.measure.inspection import Inspection
from bench.measure.messages import TrialRequest, TrialResult
from bench.measure.timing import validity
from bench.measure.timing.limits import Limits
from bench.results.environment import row_columns
from bench.results.schema import BY_NAME, Row, Value
from bench.run.launching.child import Outcome
from bench.run.launching.observation import Observation, observed_columns
from bench.run.planning.plan import Planned
from bench.run.planning.request import TO_TRIAL

IDLE_S = 5.0
"""Rest with the context open, to know the idle power."""
_OF_DEVICE = ("type", "name", "vendor", "stack", "memory_bytes")
_OF_PLANNED = ("size_choice", "batch", "items_unit", "elements_unit", "mem_estimate_bytes")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What all rows of a run share."""

    inspection: Inspection
    chips: tuple[Chip, ...]
    """Catalogue rows that the device may be."""
    environment: Mapping[str, object]
    usable_cores: int
    command: tuple[str, ...] = ()
    """The user's own program, for a trial to run; it may hold secrets and goes into no file."""
    look_log: str = ""
    """What it wrote, where the look at it failed."""

    @property
    def chip(self) -> Chip | None:
        """The catalogue row, when exactly one matches."""
        return self.chips[0] if len(self.chips) == 1 else None


def make_request(
    planned: Planned,
    *,
    trial: int,
    limits: Limits,
    facts: RunFacts,
    idle_power_w: float | None = None,
) -> TrialRequest:
    """Turn a planned configuration into what the trial's process is asked to do.

    Where the idle power is known, or would have no use, the trial does not rest for it.
    """
    config, inspection = planned.config, facts.inspection
    threads, workers = planned.threads_and_workers(
        cores=facts.usable_cores, is_accelerator=inspection.is_accelerator
    )
    rests = idle_power_w is None and not limits.is_smoke and inspection.gives_power
    return TrialRequest(
        config=config,
        limits=limits,
        trial=trial,
        cpu_ids=_cpu_ids(config.threads) if inspection.device.is_here else (),
        threads=threads,
        workers=workers,
        idle_s=IDLE_S if rests and _has_energy(config.layout, inspection) else 0.0,
        command=facts.command,
    )


def _cpu_ids(threads: int | None) -> tuple[int, ...]:
    """Cores of a trial; more threads than fast cores, where the user wants that, take slow ones."""
    return cpu.usable_cpu_ids(num_cores=max(cpu.usable_cores(), threads or 0))


def make_row(
    planned: Planned,
    *,
    facts: RunFacts,
    request: TrialRequest,
    attempt: int,
    started_utc: str,
    outcome: Outcome,
    observation: Observation,
) -> Row:
    """Build the row of one trial; a figure that was not measured has no cell."""
    config, inspection = planned.config, facts.inspection
    row = _identity(planned, facts=facts)
    row |= {
        "trial": request.trial,
        "attempt": attempt,
        "started_utc": started_utc,
        "threads": request.threads,
        "workers": request.workers,
        "rss_peak_bytes": outcome.rss_peak_bytes,
    }
    reasons = list(planned.extra_reasons)
    details: list[Value] = [outcome.detail]
    if outcome.failure is not None:
        reasons.append(outcome.failure.code)
    if isinstance(outcome.result, TrialResult):
        # What the trial does not know stays as it was planned.
        row |= {name: cell for name, cell in outcome.result.row.items() if cell is not None}
        row |= _work_columns(row, planned, threads=int(str(row["threads"])), facts=facts)
        reached = row.get("roof_frac")
        over = validity.roof_problems(
            reached if isinstance(reached, float) else None,
            is_accelerator=inspection.is_accelerator,
            dtype=config.dtype,
        )
        reasons += [*outcome.result.reasons, *(code for code, _ in over)]
        details += [outcome.result.detail, *(words for _, words in over)]
        # What is in no figure took power as well.
        has_energy = _has_energy(config.layout, inspection)
        is_mixed = "steps_apart" in outcome.result.reasons
        if has_energy and is_mixed and inspection.gives_power:
            details.append("no energy: that of the window holds those steps too")
        if observation.sampler is not None:
            observed, observed_reasons = observed_columns(
                observation,
                row=row,
                result=outcome.result,
                usable_cores=facts.usable_cores,
                has_energy=has_energy and not is_mixed,
            )
            if config.layout.strategy == "pp":
                # One device held every stage: no device of the layout would need as much.
                observed.pop("mem_device_peak_bytes", None)
            details.append(observed.pop("detail"))
            row |= observed
            reasons += observed_reasons
    row["reasons"] = ";".join(dict.fromkeys(reasons)) or None
    row["status"] = validity.status_of(reasons)
    row["detail"] = "; ".join(str(one) for one in details if one) or None
    return {key: value for key, value in row.items() if value is not None}


def _identity(planned: Planned, *, facts: RunFacts) -> Row:
    config, device = planned.config, facts.inspection.device
    uuid_hash = hashlib.sha256(device.uuid.encode()).hexdigest()[:16] if device.uuid else None
    return {
        **row_columns(facts.environment),
        **{name: getattr(config, name) for name in TO_TRIAL if name in BY_NAME},
        "workload": config.name,
        "workload_version": config.version,
        **serving_columns(config.serving),
        "size": config.size or None,
        "config_hash": planned.config_hash,
        "params_json": json.dumps(_params(config), sort_keys=True, separators=(",", ":")),
        "dtype": None if planned.is_unseen or config.server else config.dtype,
        "data": planned.data_digest,
        "mode": "simulated" if device.type == "fake" else config.layout.mode,
        **layout_columns(config.layout),
        "device": device.label,
        **{f"device_{name}": getattr(device, name) for name in _OF_DEVICE},
        "device_uuid_hash": uuid_hash,
        "device_count": config.layout.devices,
        "chip_limit": parse_chip_limit(config.chip_limit).label() if config.chip_limit else None,
        "chip": facts.chip.id if facts.chip else None,
        "cpu_cores_usable": _rank_cores(planned, facts=facts),
        **{name: getattr(planned, name) for name in _OF_PLANNED},
    }


def _params(config: Config) -> dict[str, Scalar]:
    """Return what was set, the lengths of requests of tokens as well."""
    params, serving = dict(config.params), config.serving
    if serving is not None and serving.prompt_tokens:
        params["request_prompt_tokens"] = serving.prompt_tokens
        params["request_output_tokens"] = serving.output_tokens
    return params


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


def serving_columns(serving: Serving | None) -> Row:
    """Return the columns that say how requests came."""
    if serving is None:
        return {"scenario": "closed_loop"}
    return {
        "scenario": serving.scenario.replace("-", "_") or "open_loop",
        "arrivals": serving.arrivals or None,
        "slo": serving.slo or None,
        "max_batch": None if serving.prompt_tokens else serving.max_batch,
        "max_wait_ms": serving.max_wait_s * 1e3 if serving.max_batch > 1 else None,
    }


def _rank_cores(planned: Planned, *, facts: RunFacts) -> int:
    """Cores of a rank: on a CPU its share, or as many as it was given threads."""
    if facts.inspection.device.type != "cpu":
        return facts.usable_cores
    return planned.config.threads or planned.share_of(facts.usable_cores)


def _work_columns(row: Row, planned: Planned, *, threads: int, facts: RunFacts) -> Row:
    inspection, dtype = facts.inspection, planned.config.dtype
    per_item, throughput = row.get("flops_per_item"), row.get("throughput_per_s")
    achieved = None
    if isinstance(per_item, float) and isinstance(throughput, float):
        achieved = per_item * throughput
    if planned.config.chip_limit:  # peaks and roofs are those of the whole device
        return {"achieved_flops_per_s": achieved}
    known = inspection.roof(threads=threads)
    roof = known.flops_per_s.get(dtype)
    peak = facts.chip.peak_per_s.get(dtype) if facts.chip else None
    # One rank's share of what it has: of a processor's peak that of its cores.
    own = None if achieved is None else achieved / planned.config.layout.devices
    cores_frac = _rank_cores(planned, facts=facts) / facts.usable_cores
    return {
        "achieved_flops_per_s": achieved,
        "peak_flops_per_s": peak,
        "peak_source": f"catalogue: {facts.chip.id}" if facts.chip and peak else None,
        "roof_flops_per_s": roof,
        "roof_sustained_flops_per_s": known.sustained_flops_per_s.get(dtype),
        "roof_bytes_per_s": known.bytes_per_s,
        "roof_source": known.source.get(dtype),
        "mfu_frac": own / (peak * cores_frac) if own is not None and peak else None,
        "roof_frac": own / roof if own is not None and roof else None,
    }


def _has_energy(layout: Layout, inspection: Inspection) -> bool:
    """Whether the power that was sampled is that of the row's window, all its devices counted."""
    if layout.mode == "simulated":
        return False  # the window that was sampled had no communication in it
    is_virtual = layout.mode == "emulated"
    return layout.devices == 1 or is_virtual or not inspection.is_accelerator
