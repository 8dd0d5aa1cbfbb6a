"""Which named size fits: the largest whose memory estimate leaves a margin.

A CPU is offered no more than `small`: `base` and `large` fit in a server's memory, but a step of
theirs takes minutes there, and a benchmark that does not end has measured nothing. Nor is a device
whose memory nobody knows, because `large` would run out of it on most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import discovery
from bench.core.errors import MeasurementError, UsageError
from bench.core.nouns import SIZES, Dtype
from bench.core.units import format_bytes
from bench.workload import Phase, Workload

CPU_SIZES = ("tiny", "small")
MARGIN_FRAC = 0.85
"""Share of the free memory that an estimate may take: estimates are rough, allocators fragment."""


@dataclass(frozen=True, kw_only=True)
class SizeChoice:
    """A size and why; `name` is '' for a workload without named sizes."""

    name: str
    reason: str
    estimate_bytes: int


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
) -> SizeChoice:
    """Return the size asked for, else the largest that fits and that `check` lets pass.

    Raises `MeasurementError` when not even the smallest of them fits, and what `check` raises when
    it lets none pass.
    """

    def chosen(name: str, reason: str) -> SizeChoice:
        workload = discovery.instance(found, size=name or None, overrides=overrides)
        estimate = workload.memory_bytes(phase, dtype=dtype)
        return SizeChoice(name=name, reason=reason, estimate_bytes=estimate)

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
    raise MeasurementError(
        f"{found.name}-{phase.name} needs about {needed} even at {candidates[0]}, "
        f"{format_bytes(free_bytes or 0)} are free; use a smaller --batch or free memory"
    )


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
