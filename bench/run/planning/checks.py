"""What can be refused before the device is looked at."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench import discovery
from bench.core.errors import DataError, UsageError, one_of
from bench.core.nouns import COMPILE_MODES, DTYPES, MODES, SIZES, STRATEGIES, Dtype, Layout
from bench.core.paths import user_path
from bench.measure.timing.limits import PROFILES
from bench.run.planning.request import FLAGS, RunRequest, is_given
from bench.run.planning.selection import Selected, passing, select
from bench.run.planning.serving import check_served, check_serving
from bench.workload import Phase, Workload

LONGEST_S = 365 * 86400.0
MOST_DEVICES = 1 << 20
_ONLY_SERVED = ("slo", "max_batch", "max_wait_s", "seconds", "prompt_tokens", "output_tokens")
ONLY_ENDPOINT = ("model", "chat", "stall_s", "think_s")
"""The last is also of users of a served phase."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A phase with the layouts of the sweep that it can join."""

    found: discovery.Found
    phase: Phase
    layouts: tuple[Layout, ...]
    others: dict[str, list[Layout]]
    """By why it cannot join them."""
    dtypes: tuple[Dtype, ...]
    """Those asked for in which it computes right; none: the default."""
    wrong_dtypes: tuple[str, ...]

    @property
    def left_out(self) -> list[str]:
        """A line for each reason why it cannot join the others."""
        name = f"{self.found.name}-{self.phase.name}"
        lines = [f"left out: {name} {_how(some)}: {why}" for why, some in self.others.items()]
        if self.wrong_dtypes:
            lines.append(f"left out: {_dtype_words(self.found, self.wrong_dtypes)}")
        return lines


def check_request(request: RunRequest) -> list[Joined]:
    """Check everything that can be checked without the device; return the phases to run.

    `UsageError` where nothing is left to run, with why the first phase cannot be.
    """
    from bench.run.planning.layout_flags import make_layouts

    selected = select(request.workloads)
    check_values(request)
    layouts = make_layouts(request)
    phases = [one for _, one in selected]
    if request.is_served:
        check_served(request, phases, layouts=layouts)
    elif any(phase.is_served for phase in phases):
        raise UsageError(
            "requests of tokens come by themselves: give --arrivals, such as poisson:2/s, and "
            "--slo ttft=2s@p99,tpot=200ms@p99"
        )
    every = [_joined(request, one, layouts=layouts) for one in selected]
    if not any(one.layouts for one in every):
        raise UsageError(next(iter(every[0].others)))
    if request.dtypes and not any(one.dtypes for one in every):
        raise UsageError(f"--dtype: {_dtype_words(every[0].found, every[0].wrong_dtypes)}")
    for found, phases_of_it in itertools.groupby(every, key=lambda one: one.found):
        _check_data(request, found, phase_name=next(phases_of_it).phase.name)
    return every


def _joined(request: RunRequest, selected: Selected, *, layouts: Sequence[Layout]) -> Joined:
    """Join the layouts that some size of the phase can be spread by."""
    found, phase = selected
    check = partial(check_layouts, request=request, phase=phase)
    kept: list[Layout] = []
    others: dict[str, list[Layout]] = {}
    swept = [_instances(request, found, overrides=one) for one in request.overrides]
    for layout in layouts:
        try:
            passing(itertools.chain.from_iterable(swept), partial(check, layouts=[layout]))
        except UsageError as error:
            others.setdefault(str(error), []).append(layout)
        else:
            kept.append(layout)
    for workloads in swept:
        # Each size that was asked for, else one of them.
        for some in [[one] for one in reversed(workloads)] if request.sizes else [workloads]:
            passing(some, partial(check, layouts=kept))
    allowed = found.cls.dtypes or DTYPES
    return Joined(
        found=found,
        phase=phase,
        layouts=tuple(kept),
        others=others,
        dtypes=tuple(one for one in request.dtypes if one in allowed),
        wrong_dtypes=tuple(one for one in request.dtypes if one not in allowed),
    )


def _dtype_words(found: discovery.Found, wrong: Sequence[str]) -> str:
    """`molecules in bf16: it computes right in fp32, tf32 alone`."""
    return (
        f"{found.name} in {', '.join(wrong)}: "
        f"it computes right in {', '.join(found.cls.dtypes or ())} alone"
    )


def _how(layouts: Sequence[Layout]) -> str:
    """`by ddp on 2, 8 devices`."""
    strategies = ", ".join(dict.fromkeys(one.strategy for one in layouts if one.strategy))
    counts = ", ".join(dict.fromkeys(str(one.devices) for one in layouts))
    by = f"by {strategies} " if strategies else ""
    return f"{by}on {counts} device{'' if counts == '1' else 's'}"


def _instances(
    request: RunRequest, found: discovery.Found, *, overrides: dict[str, Any]
) -> list[Workload]:
    """Return the workload at the sizes that may run; which of them does the device decides."""

    def instance(size: str | None) -> Workload:
        return discovery.instance(found, size=size, overrides=overrides)

    sizes = request.sizes or passing(found.cls.sizes, instance) or (None,)
    return [instance(size) for size in sizes]


def check_values(request: RunRequest) -> None:
    """Refuse a value that no flag takes, and flags that do not go together."""
    known: dict[str, tuple[Sequence[str | None], Sequence[str]]] = {
        "--profile": ([request.profile], list(PROFILES)),
        "--dtype": (request.dtypes, DTYPES),
        "--size": (request.sizes, SIZES),
        "--compile-mode": ([request.compile_mode], COMPILE_MODES),
        "--parallel": (request.parallel, STRATEGIES),
        "--mode": ([request.mode], MODES),
    }
    for flag, (texts, allowed) in known.items():
        for text in texts:
            if text is not None and text not in allowed:
                raise one_of(flag, text, list(allowed))
    numbers: list[tuple[str, Sequence[int | None], int, int]] = [
        ("--threads", [request.threads], 1, 4096),
        ("--workers", [request.workers], 0, 4096),
        ("--trials", [request.trials], 1, 10_000),
        ("--seed", [request.seed], 0, 2**63 - 1),
        ("--devices", request.devices, 1, MOST_DEVICES),
        ("--tp", [request.tp], 1, MOST_DEVICES),
        ("--dp", [request.dp], 1, MOST_DEVICES),
        ("--pp", [request.pp], 1, MOST_DEVICES),
        ("--grad-accum", [request.grad_accum], 1, 65_536),
    ]
    for flag, values, least, most in numbers:
        for value in values:
            if value is not None and not least <= value <= most:
                raise UsageError(f"{flag} {value} must be from {least} to {most}")
    for batch in request.batches:
        if batch < 1:
            raise UsageError(f"--batch {batch} must be at least 1")
    if request.bucket_mib is not None and not 1e-6 <= request.bucket_mib <= 1e6:
        raise UsageError(f"--bucket-mib {request.bucket_mib} must be more than 0, such as 25")
    for flag, value_s in (("--budget", request.budget_s), ("--timeout", request.timeout_s)):
        if value_s is not None and not 0 < value_s <= LONGEST_S:
            raise UsageError(f"{flag} must be more than nothing and at most 365d, such as 10m")
    _check_together(request)
    alone = ONLY_ENDPOINT[:-1] if request.is_served else ONLY_ENDPOINT
    given = [FLAGS[name].names[0] for name in alone if is_given(request, name)]
    if given and request.endpoint is None:
        raise UsageError(f"{given[0]} is about a server: give --endpoint http://HOST:8000/v1")
    if request.is_served:
        check_serving(request)
    elif given := [FLAGS[name].names[0] for name in _ONLY_SERVED if is_given(request, name)]:
        raise UsageError(f"{given[0]} is about requests that come: give --arrivals as well")


def _check_together(request: RunRequest) -> None:
    if request.compile_mode and not request.compile:
        raise UsageError(f"--compile-mode {request.compile_mode} needs --compile")
    if request.mode in ("throttled", "emulated", "simulated") and not request.links:
        raise UsageError(f"--mode {request.mode} needs a --link; `bench list links` shows presets")
    if request.mode == "real" and request.links:
        raise UsageError("--mode real uses the link that is there; leave --link out")
    if request.contention not in ("bracket", "none") and not request.contention.isdecimal():
        raise UsageError(
            f"--contention {request.contention!r}: allowed are bracket, none, or compute units as "
            "a whole number"
        )
    from bench.emulate.pipeline import parse_schedule
    from bench.parallel.support import parse_mitigation

    parse_schedule(request.schedule)
    for mitigation in request.mitigate:
        parse_mitigation("" if mitigation == "none" else mitigation)
    if request.chip_limit is not None:
        from bench.hardware.chip_limit import parse_chip_limit

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
    for overrides, size in itertools.product(request.overrides, sizes):
        discovery.instance(found, size=size, overrides=overrides).check_data(path)


def check_layouts(
    workload: Workload, *, request: RunRequest, phase: Phase, layouts: Sequence[Layout]
) -> None:
    """Refuse a workload that one of the layouts cannot spread."""
    from bench.parallel.support import check_layout, check_refused

    for layout in layouts:
        check_refused(workload, phase, strategy=layout.strategy, is_compiled=request.compile)
        if layout == Layout():
            continue  # one device carries any workload
        check_layout(workload, phase, layout, is_compiled=request.compile)
        if request.compile_mode and not layout.is_single:
            raise UsageError(
                f"--compile-mode {request.compile_mode} is for one device alone: collectives "
                "and modelled links are no part of a CUDA graph; leave it out"
            )
