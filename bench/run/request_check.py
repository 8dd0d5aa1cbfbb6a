"""What can be said against a request before the device is looked at: one line for each mistake.

Flags, the workload's parameters, its data, and whether it can be spread as asked. What depends on
the device (its memory, its dtypes) is found by `bench.run.plan`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from bench import discovery
from bench.core.errors import DataError, UsageError, one_of
from bench.core.nouns import DTYPES, SIZES, Layout
from bench.core.paths import user_path
from bench.hardware.chip_limit import ChipLimit, parse_chip_limit
from bench.measure.limits import PROFILES
from bench.parallel.support import check_layout
from bench.run.layouts import make_layouts
from bench.run.request import RunRequest
from bench.run.selection import Selected, select
from bench.run.sizes import possible_sizes
from bench.workload import Phase, Workload

LONGEST_S = 365 * 86400.0


def check_request(request: RunRequest) -> list[Selected]:
    """Check everything that can be checked without the device; return the phases to run."""
    selected = select(request.workloads)
    if request.profile not in PROFILES:
        raise one_of("--profile", request.profile, list(PROFILES))
    for dtype in request.dtypes:
        if dtype not in DTYPES:
            raise one_of("--dtype", dtype, list(DTYPES))
    for name in request.sizes:
        if name not in SIZES:
            raise one_of("--size", name, list(SIZES))
    for batch in request.batches:
        if batch < 1:
            raise UsageError(f"--batch {batch} must be at least 1")
    _check_numbers(request)
    limit_of(request)
    layouts = make_layouts(request.spread)
    for found, phase in selected:
        check = layouts_check(request, phase, layouts=layouts)
        for overrides in overrides_of(request):
            # Flags are checked before the device, on which it depends what size is chosen.
            for size in request.sizes or (() if found.cls.sizes else (None,)):
                check(discovery.instance(found, size=size, overrides=overrides))
            if not request.sizes:
                possible_sizes(found, list(found.cls.sizes), overrides=overrides, check=check)
        _check_data(request, found, phase_name=phase.name)
    return selected


def layouts_check(
    request: RunRequest, phase: Phase, *, layouts: Sequence[Layout]
) -> Callable[[Workload], None]:
    """Return what refuses a workload that one of the layouts cannot spread: a sweep is of one."""

    def check(workload: Workload) -> None:
        for layout in layouts:
            check_layout(workload, phase, layout, is_compiled=request.is_compiled)

    return check


def _check_numbers(request: RunRequest) -> None:
    for flag, value, least, most in (
        ("--threads", request.threads, 1, 4096),
        ("--workers", request.workers, 0, 4096),
        ("--trials", request.trials, 1, 10_000),
        ("--seed", request.seed, 0, 2**63 - 1),
    ):
        if value is not None and not least <= value <= most:
            raise UsageError(f"{flag} {value} must be from {least} to {most}")
    for flag, value_s in (("--budget", request.budget_s), ("--timeout", request.timeout_s)):
        if value_s is not None and not 0 < value_s <= LONGEST_S:
            raise UsageError(f"{flag} must be more than nothing and at most 365d, such as 10m")


def limit_of(request: RunRequest) -> ChipLimit | None:
    """Return the part of the device that is asked for; None: all of it."""
    return None if request.chip_limit is None else parse_chip_limit(request.chip_limit)


def _sizes_to_check(request: RunRequest, found: discovery.Found) -> tuple[str | None, ...]:
    """Return the sizes asked for, else the first there is."""
    return request.sizes or tuple(found.cls.sizes)[:1] or (None,)


def _check_data(request: RunRequest, found: discovery.Found, *, phase_name: str) -> None:
    if request.data in (None, "resident"):
        return
    assert request.data is not None
    if found.cls.accepts_data is None:
        raise UsageError(f"{found.name}-{phase_name} takes no --data; it makes its own")
    path = user_path(request.data, what="--data")
    if not path.exists():
        raise DataError(
            f"--data {path} does not exist; {found.name} takes {found.cls.accepts_data}"
        )
    for overrides in overrides_of(request):
        for size in _sizes_to_check(request, found):
            discovery.instance(found, size=size, overrides=overrides).check_data(path)


def overrides_of(request: RunRequest) -> list[dict[str, Any]]:
    """Return every combination of --set and --batch values."""
    keys = list(request.settings)
    combinations = itertools.product(*(request.settings[key] for key in keys))
    settings = [dict(zip(keys, values, strict=True)) for values in combinations]
    if not request.batches:
        return settings
    return [{**setting, "batch": batch} for setting in settings for batch in request.batches]
