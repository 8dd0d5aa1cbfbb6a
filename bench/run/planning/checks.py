"""What can be refused before the device is looked at, and which workloads and sizes are meant.

A CPU is offered no more than `small`: `base` and `large` fit in a server's memory, but a step of
theirs takes minutes there, and a benchmark that does not end has measured nothing. Nor is a device
whose memory nobody knows, because `large` would run out of it on most.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import discovery
from bench.core.errors import DataError, UsageError, one_of
from bench.core.nouns import COMPILE_MODES, DTYPES, MODES, SIZES, STRATEGIES, Dtype, Layout
from bench.core.paths import user_path
from bench.core.units import format_bytes
from bench.measure.timing.limits import PROFILES
from bench.workload import Phase, Workload, memory_bytes_of

if TYPE_CHECKING:
    from bench.run.planning.request import RunRequest

Selected = tuple[discovery.Found, Phase]
LONGEST_S = 365 * 86400.0
MOST_DEVICES = 1 << 20
CPU_SIZES = ("tiny", "small")
MARGIN_FRAC = 0.85
"""Share of the free memory that an estimate may take: estimates are rough, allocators fragment."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A phase with the layouts of the sweep that it can join."""

    found: discovery.Found
    phase: Phase
    layouts: tuple[Layout, ...]
    left_out: tuple[str, ...] = ()
    """A line for each reason why it cannot join the others."""


def check_request(request: RunRequest) -> list[Joined]:
    """Check everything that can be checked without the device; return the phases to run.

    `UsageError` where nothing is left to run, with why the first phase cannot be.
    """
    from bench.run.planning.layout_flags import make_layouts

    selected = select(request.workloads)
    _check_values(request)
    layouts = make_layouts(request)
    refused: list[UsageError] = []
    every = [_joined(request, one, layouts=layouts, refused=refused) for one in selected]
    if not any(one.layouts for one in every):
        raise refused[0]
    for one in every:
        check = partial(check_layouts, request=request, phase=one.phase, layouts=one.layouts)
        for workloads in _instances(request, one.found):
            _check_any(workloads, check=check, is_each=bool(request.sizes))
        _check_data(request, one.found, phase_name=one.phase.name)
    return every


def _joined(
    request: RunRequest,
    selected: Selected,
    *,
    layouts: Sequence[Layout],
    refused: list[UsageError],
) -> Joined:
    """Join the layouts that some size of the phase can be spread by; adds why not to `refused`."""
    found, phase = selected
    kept: list[Layout] = []
    others: dict[str, list[Layout]] = {}
    workloads = list(itertools.chain.from_iterable(_instances(request, found)))
    for layout in layouts:
        check = partial(check_layouts, request=request, phase=phase, layouts=(layout,))
        try:
            _check_any(workloads, check=check)
        except UsageError as error:
            refused.append(error)
            others.setdefault(str(error), []).append(layout)
        else:
            kept.append(layout)
    name = f"{found.name}-{phase.name}"
    lines = (f"left out: {name} {_how(some)}: {why}" for why, some in others.items())
    return Joined(found=found, phase=phase, layouts=tuple(kept), left_out=tuple(lines))


def _how(layouts: Sequence[Layout]) -> str:
    """`by ddp on 2, 8 devices`."""
    strategies = ", ".join(dict.fromkeys(one.strategy for one in layouts if one.strategy))
    counts = ", ".join(dict.fromkeys(str(one.devices) for one in layouts))
    by = f"by {strategies} " if strategies else ""
    return f"{by}on {counts} device{'' if counts == '1' else 's'}"


def _instances(request: RunRequest, found: discovery.Found) -> Iterator[list[Workload]]:
    """Yield, for each combination of --set and --batch, the workload at the sizes that may run.

    Flags are checked before the device, on which it depends what size is chosen.
    """
    for overrides in overrides_of(request):
        sizes: Sequence[str | None] = request.sizes or (() if found.cls.sizes else (None,))
        if not sizes:
            every = list(found.cls.sizes)
            sizes = possible_sizes(found, every, overrides=overrides, check=lambda _one: None)
        yield [discovery.instance(found, size=size, overrides=overrides) for size in sizes]


def _check_any(
    workloads: Sequence[Workload], *, check: Callable[[Workload], None], is_each: bool = False
) -> None:
    """Raise why `check` refuses the last, unless it lets one pass, or all with `is_each`."""
    refused: list[UsageError] = []
    for workload in workloads:
        try:
            check(workload)
        except UsageError as error:
            refused.append(error)
    if refused and (is_each or len(refused) == len(workloads)):
        raise refused[-1]


def select(texts: tuple[str, ...]) -> list[Selected]:
    """Return the phases that --workload names, each once: all, imaging, imaging:train, ./mine.py.

    `UsageError` lists what there is.
    """
    if not texts:
        raise UsageError("--workload is missing; `bench list` shows what there is")
    selected: list[Selected] = []
    for one in itertools.chain.from_iterable(map(_select_one, texts)):
        if one not in selected:
            selected.append(one)
    return selected


def _select_one(text: str) -> list[Selected]:
    name, colon, phase_name = text.rpartition(":")
    if not colon or any(mark in phase_name for mark in (".py", "/", "\\")):
        return _phases_of(text)  # no colon but that of a path
    every = _phases_of(name)
    chosen = [one for one in every if one[1].name == phase_name]
    if not chosen:
        phases = list(dict.fromkeys(phase.name for _, phase in every))
        hint = f"(or leave the colon out for {'both' if len(phases) == 2 else 'all'})"
        raise one_of(f"phase of {name}", phase_name, phases, hint="" if phase_name else hint)
    return chosen


def _phases_of(text: str) -> list[Selected]:
    if ".py" in text or "/" in text:
        found = discovery.load(text)
        return [(found, phase) for phase in found.cls.phases]
    everything = [discovery.load(name) for name in discovery.names()]
    pairs = [(found, phase) for found in everything for phase in found.cls.phases]
    if text == "all":
        return [(found, phase) for found, phase in pairs if not found.cls.is_selftest]
    named = {f"{found.name}-{phase.name}": (found, phase) for found, phase in pairs}
    matched = [one for name, one in named.items() if fnmatchcase(name, text) or one[0].name == text]
    if not matched:
        raise one_of("workload", text, [*named, "all"], hint="(or a file such as ./mine.py)")
    return matched


def _check_values(request: RunRequest) -> None:
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
    if request.bucket_mib is not None and not 0 < request.bucket_mib <= 1e6:
        raise UsageError(f"--bucket-mib {request.bucket_mib} must be more than 0, such as 25")
    for flag, value_s in (("--budget", request.budget_s), ("--timeout", request.timeout_s)):
        if value_s is not None and not 0 < value_s <= LONGEST_S:
            raise UsageError(f"{flag} must be more than nothing and at most 365d, such as 10m")
    _check_together(request)


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
    for overrides, size in itertools.product(overrides_of(request), sizes):
        discovery.instance(found, size=size, overrides=overrides).check_data(path)


def check_layouts(
    workload: Workload, *, request: RunRequest, phase: Phase, layouts: Sequence[Layout]
) -> None:
    """Refuse a workload that one of the layouts cannot spread."""
    from bench.parallel.support import check_layout

    for layout in layouts:
        if layout == Layout():
            continue  # one device carries any workload
        check_layout(workload, phase, layout, is_compiled=request.compile)
        if request.compile_mode and not layout.is_single:
            raise UsageError(
                f"--compile-mode {request.compile_mode} is for one device alone: collectives "
                "and modelled links are no part of a CUDA graph; leave it out"
            )


def overrides_of(request: RunRequest) -> list[dict[str, Any]]:
    """Return every combination of --set and --batch values."""
    swept: dict[str, Sequence[Any]] = dict(request.settings)
    if request.batches:
        swept["batch"] = request.batches
    return [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]


def possible_sizes(
    found: discovery.Found,
    names: Sequence[str],
    *,
    overrides: dict[str, Any],
    check: Callable[[Workload], None],
) -> list[str]:
    """Return the sizes that `check` lets pass; when it refuses all, raise why of the last."""
    possible, refused = [], None
    for name in names:
        try:
            check(discovery.instance(found, size=name, overrides=overrides))
        except UsageError as error:
            refused = error
        else:
            possible.append(name)
    if refused is not None and not possible:
        raise refused
    return possible


@dataclass(frozen=True, kw_only=True)
class SizeChoice:
    """A size and why; `name` is '' for a workload without named sizes."""

    name: str
    reason: str
    workload: Workload
    estimate_bytes: int
    refusal: tuple[str, str] | None = None


def choose_size(
    found: discovery.Found,
    phase: Phase,
    *,
    asked: str | None,
    dtype: Dtype,
    overrides: dict[str, Any],
    free_bytes: int | None,
    is_cpu: bool,
    check: Callable[[Workload], None],
    data: Path | None = None,
) -> SizeChoice:
    """Return the size asked for, else the largest that fits and that `check` lets pass.

    The smallest is refused where not even that fits; `UsageError` where `check` lets none pass.
    """

    def chosen(name: str, reason: str) -> SizeChoice:
        workload = discovery.instance(found, size=name or None, overrides=overrides)
        sized = workload if data is None else workload.sized_for(phase, data)
        estimate = memory_bytes_of(sized, phase, dtype=dtype)
        return SizeChoice(name=name, reason=reason, workload=workload, estimate_bytes=estimate)

    if asked is not None:
        return chosen(asked, "user")
    every = [name for name in SIZES if name in found.cls.sizes]
    if is_cpu or free_bytes is None:
        every = [name for name in every if name in CPU_SIZES] or every[:1]
    candidates = possible_sizes(found, every, overrides=overrides, check=check)
    if not candidates:
        return chosen("", "the workload has one size")
    for name in reversed(candidates):
        kind = "largest for a CPU" if is_cpu and name == every[-1] else "largest that fits"
        one = chosen(name, f"auto: {kind}")
        needed = format_bytes(one.estimate_bytes)
        if free_bytes is None or one.estimate_bytes <= MARGIN_FRAC * free_bytes:
            free = "unknown memory" if free_bytes is None else f"{format_bytes(free_bytes)} free"
            return replace(one, reason=f"{one.reason} (about {needed} of {free})")
    why = (
        f"{found.name}-{phase.name} needs about {needed} even at {one.name}, "
        f"{format_bytes(free_bytes or 0)} are free; use a smaller --batch or free memory"
    )
    refusal = ("out_of_memory", why)
    return replace(one, reason="auto: nothing fits", estimate_bytes=0, refusal=refusal)
