"""From a request to a plan: flags checked, every combination of the swept ones, sizes chosen.

Nothing runs here and torch is not imported. What can be refused without the device is refused
before it is looked at (`check_request`); its memory and dtypes were inspected when a plan is made.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench import discovery
from bench.core.errors import DataError, MeasurementError, UsageError, one_of
from bench.core.nouns import COMPILE_MODES, DTYPES, SIZES, Config, Dtype, Layout
from bench.core.paths import user_path
from bench.hardware.chip_limit import ChipLimit, check_device, parse_chip_limit
from bench.measure.inspection import Inspection
from bench.measure.timing.limits import PROFILES, for_device, within_budget
from bench.parallel.support import check_layout
from bench.run.planning.layout_flags import make_layouts, settle_mode
from bench.run.planning.plan import Plan, Planned, digest_of
from bench.run.planning.request import TO_TRIAL, RunRequest
from bench.run.planning.sizes import SizeChoice, choose_size, possible_sizes
from bench.run.planning.workload_selection import Selected, select
from bench.workload import Phase, Workload

LONGEST_S = 365 * 86400.0
STARTUP_S = 15.0
"""What a trial takes besides its limits, for planning only: imports, building, first step."""


# Without the device -------------------------------------------------------------------------------


def check_request(request: RunRequest) -> list[Selected]:
    """Check everything that can be checked without the device; return the phases to run."""
    selected = select(request.workloads)
    _check_values(request)
    layouts = make_layouts(request)
    for found, phase in selected:
        check = functools.partial(_check_layouts, request=request, phase=phase, layouts=layouts)
        for overrides in _overrides_of(request):
            # Flags are checked before the device, on which it depends what size is chosen.
            for size in request.sizes or (() if found.cls.sizes else (None,)):
                check(discovery.instance(found, size=size, overrides=overrides))
            if not request.sizes:
                possible_sizes(found, list(found.cls.sizes), overrides=overrides, check=check)
        _check_data(request, found, phase_name=phase.name)
    return selected


def _check_values(request: RunRequest) -> None:
    known: dict[str, tuple[Sequence[str], Sequence[str]]] = {
        "--profile": ([request.profile], list(PROFILES)),
        "--dtype": (request.dtypes, DTYPES),
        "--size": (request.sizes, SIZES),
        "--compile-mode": ([request.compile_mode] if request.compile_mode else [], COMPILE_MODES),
    }
    for flag, (texts, allowed) in known.items():
        for text in texts:
            if text not in allowed:
                raise one_of(flag, text, list(allowed))
    for batch in request.batches:
        if batch < 1:
            raise UsageError(f"--batch {batch} must be at least 1")
    for flag, number, least, most in (
        ("--threads", request.threads, 1, 4096),
        ("--workers", request.workers, 0, 4096),
        ("--trials", request.trials, 1, 10_000),
        ("--seed", request.seed, 0, 2**63 - 1),
    ):
        if number is not None and not least <= number <= most:
            raise UsageError(f"{flag} {number} must be from {least} to {most}")
    for flag, value_s in (("--budget", request.budget_s), ("--timeout", request.timeout_s)):
        if value_s is not None and not 0 < value_s <= LONGEST_S:
            raise UsageError(f"{flag} must be more than nothing and at most 365d, such as 10m")
    if request.compile_mode and not request.compile:
        raise UsageError(f"--compile-mode {request.compile_mode} needs --compile")
    if request.chip_limit is not None:
        parse_chip_limit(request.chip_limit)


def _check_data(request: RunRequest, found: discovery.Found, *, phase_name: str) -> None:
    if request.data in (None, "resident"):
        return
    if found.cls.accepts_data is None:
        raise UsageError(f"{found.name}-{phase_name} takes no --data; it makes its own")
    path = user_path(str(request.data), what="--data")
    if not path.exists():
        raise DataError(
            f"--data {path} does not exist; {found.name} takes {found.cls.accepts_data}"
        )
    sizes: Sequence[str | None] = request.sizes or tuple(found.cls.sizes)[:1] or (None,)
    for overrides, size in itertools.product(_overrides_of(request), sizes):
        discovery.instance(found, size=size, overrides=overrides).check_data(path)


def _check_layouts(
    workload: Workload, *, request: RunRequest, phase: Phase, layouts: Sequence[Layout]
) -> None:
    """Refuse a workload that one of the layouts cannot spread: a sweep is of one."""
    for layout in layouts:
        if layout == Layout():
            continue  # one device carries any workload
        check_layout(workload, phase, layout, is_compiled=request.compile)
        if request.compile_mode and not layout.is_single:
            raise UsageError(
                f"--compile-mode {request.compile_mode} is for one device alone: collectives "
                "and modelled links are no part of a CUDA graph; leave it out"
            )


def _overrides_of(request: RunRequest) -> list[dict[str, Any]]:
    """Return every combination of --set and --batch values."""
    swept: dict[str, Sequence[Any]] = dict(request.settings)
    if request.batches:
        swept["batch"] = request.batches
    return [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]


# With the device ----------------------------------------------------------------------------------


def make_plan(request: RunRequest, *, selected: Sequence[Selected], inspection: Inspection) -> Plan:
    """Expand the checked request on the inspected device; `UsageError` on what it cannot do."""
    limit = None if request.chip_limit is None else parse_chip_limit(request.chip_limit)
    if limit is not None:
        check_device(limit, device_type=inspection.device.type)
    layouts = make_layouts(request)
    every = [
        _planned(request, inspection, selected=one, choice=choice, layouts=layouts, limit=limit)
        for one in selected
        for choice in itertools.product(
            request.sizes or (None,),
            request.dtypes or (inspection.default_dtype,),
            _overrides_of(request),
            layouts,
        )
    ]
    # A value given twice, or two sizes made equal by --set, are one configuration.
    planned = list({one.config_hash: one for one in reversed(every)}.values())[::-1]
    profile = PROFILES[request.profile]
    if request.trials is not None:
        profile = replace(profile, min_trials=request.trials, max_trials=request.trials)
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
    selected: Selected,
    choice: tuple[str | None, Dtype, dict[str, Any], Layout],
    layouts: Sequence[Layout],
    limit: ChipLimit | None,
) -> Planned:
    size, dtype, overrides, layout = choice
    found, phase = selected
    refusal = _refusal(dtype, inspection)
    data = request.data or "generated"
    if data not in ("generated", "resident"):
        data = str(user_path(data, what="--data").resolve())
    check = functools.partial(_check_layouts, request=request, phase=phase, layouts=layouts)
    try:
        chosen = choose_size(
            found,
            phase,
            asked=size,
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
        request,
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
            data=data,
            device=inspection.device.label,
            layout=layout,
            chip_limit=limit.name if limit else "",
            **{name: getattr(request, name) for name in TO_TRIAL},
        ),
        size_choice=chosen.reason,
        mem_estimate_bytes=chosen.estimate_bytes or None,
        batch=workload.batch_size(phase),
        items_unit=phase.item,
        elements_unit=phase.element,
        data_digest=digest_of(data),
        refusal=refusal,
    )


def _free_bytes(inspection: Inspection, *, limit: ChipLimit | None) -> int | None:
    """Free memory of the device, or all of it where nothing shows what is free."""
    device = inspection.device
    is_known = device.memory_free_bytes is not None
    free_bytes = device.memory_free_bytes if is_known else device.memory_bytes
    known = [free_bytes, None if limit is None else limit.memory_bytes]
    return min((size for size in known if size is not None), default=None)


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
