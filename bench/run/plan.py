"""From a request to a plan: every combination of the swept flags, sizes and dtypes chosen.

Nothing runs here and torch is not imported; what must be known of the device was inspected before.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench import discovery
from bench.core.errors import DataError, MeasurementError
from bench.core.nouns import DTYPES, Config, Dtype, Layout
from bench.core.paths import user_path
from bench.hardware.chip_limit import ChipLimit, check_device
from bench.measure.inspection import Inspection
from bench.measure.limits import for_device, within_budget
from bench.run.layouts import make_layouts, settle_mode
from bench.run.request import Plan, Planned, RunRequest, profile_of
from bench.run.request_check import check_request, layouts_check, limit_of, overrides_of
from bench.run.sizes import SizeChoice, choose_size, possible_sizes

STARTUP_S = 15.0
"""What a trial takes besides its limits, for planning only: imports, building, first step."""


def shrunk(planned: Planned) -> Planned | None:
    """Return the configuration at half the batch; None where that makes its step no smaller."""
    config = planned.config
    found = discovery.load(config.source or config.workload)
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


def make_plan(request: RunRequest, *, inspection: Inspection) -> Plan:
    """Expand the request on the inspected device; `UsageError` on what cannot be meant."""
    selected = check_request(request)
    limit = limit_of(request)
    if limit is not None:
        check_device(limit, device_type=inspection.device.type)
    layouts = make_layouts(request.spread)
    every = [
        _planned(
            request,
            inspection,
            found=found,
            phase_name=phase.name,
            choice=choice,
            layouts=layouts,
        )
        for found, phase in selected
        for choice in itertools.product(
            request.sizes or (None,),
            request.dtypes or (inspection.default_dtype,),
            overrides_of(request),
            layouts,
        )
    ]
    # A value given twice, or two sizes made equal by --set, are one configuration.
    planned = list({one.config_hash: one for one in reversed(every)}.values())[::-1]
    profile = profile_of(request)
    limits = for_device(profile.limits, is_accelerator=inspection.is_accelerator)
    budget_s = request.budget_s or profile.budget_s * len(planned)
    if request.budget_s is not None:
        trials = profile.min_trials * len(planned)
        limits = within_budget(limits, trial_s=max(0.0, budget_s / trials - STARTUP_S))
    return Plan(
        planned=tuple(planned),
        profile=profile.name,
        min_trials=profile.min_trials,
        max_trials=profile.max_trials,
        limits=limits,
        target_half_width_frac=profile.target_half_width_frac,
        budget_s=budget_s,
        is_budget_firm=request.budget_s is not None,
        timeout_s=request.timeout_s,
        seed=request.seed,
        oom_shrink=request.oom_shrink,
    )


def _planned(
    request: RunRequest,
    inspection: Inspection,
    *,
    found: discovery.Found,
    phase_name: str,
    choice: tuple[str | None, Dtype, dict[str, Any], Layout],
    layouts: Sequence[Layout],
) -> Planned:
    size, dtype, overrides, layout = choice
    limit = limit_of(request)
    phase = found.phase(phase_name)
    refusal = _refusal(dtype, inspection)
    if size is not None:
        workload = discovery.instance(found, size=size, overrides=overrides)
        estimate = workload.memory_bytes(phase, dtype=dtype)
        chosen = SizeChoice(name=size, reason="user", estimate_bytes=estimate)
    else:
        check = layouts_check(request, phase, layouts=layouts)
        try:
            chosen = choose_size(
                found,
                phase,
                dtype=dtype,
                overrides=overrides,
                free_bytes=_free_bytes(inspection, limit=limit),
                is_cpu=not inspection.is_accelerator,
                check=check,
            )
        except MeasurementError as error:
            smallest, *_ = possible_sizes(
                found, list(found.cls.sizes), overrides=overrides, check=check
            )
            chosen = SizeChoice(name=smallest, reason="auto: nothing fits", estimate_bytes=0)
            refusal = ("out_of_memory", str(error))
    workload = discovery.instance(found, size=chosen.name or None, overrides=overrides)
    layout = settle_mode(
        layout,
        request.spread,
        sweep=layouts,
        num_parameters=workload.num_parameters(),
        is_accelerator=inspection.is_accelerator,
    )
    return Planned(
        config=Config(
            workload=found.name,
            source=found.source,
            phase=phase.name,
            version=found.version,
            size=chosen.name,
            params=discovery.parameters(workload),
            dtype=dtype,
            compile=request.is_compiled,
            channels_last=request.channels_last,
            data=_data_for_child(request),
            device=inspection.device.label,
            threads=request.threads,
            workers=request.workers,
            seed=request.seed,
            layout=layout,
            chip_limit=limit.name if limit else "",
        ),
        size_choice=chosen.reason,
        mem_estimate_bytes=chosen.estimate_bytes or None,
        batch=workload.batch_size(phase),
        items_unit=phase.item,
        elements_unit=phase.element,
        data_digest=digest_of(request.data),
        refusal=refusal,
    )


def _free_bytes(inspection: Inspection, *, limit: ChipLimit | None) -> int | None:
    free_bytes = inspection.device.memory_free_bytes
    if limit is None or limit.memory_bytes is None:
        return free_bytes
    return limit.memory_bytes if free_bytes is None else min(free_bytes, limit.memory_bytes)


def _refusal(dtype: Dtype, inspection: Inspection) -> tuple[str, str] | None:
    capability = inspection.capabilities.get(dtype)
    if capability in (None, "ok"):
        return None
    works = ", ".join(name for name in DTYPES if inspection.capabilities.get(name) == "ok")
    how = "refuses" if capability == "raises" else "computes wrong results in"
    return (
        "unsupported_dtype",
        f"{inspection.device.label} {how} {dtype}; it works in {works or 'none of the dtypes'}",
    )


def _data_for_child(request: RunRequest) -> str:
    if request.data in (None, "resident"):
        return request.data or "generated"
    return str(user_path(str(request.data), what="--data").resolve())


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
