"""Which workloads and sizes are meant.

A CPU is offered no more than `small`: `base` and `large` fit in a server's memory, but a step of
theirs takes minutes there, and a benchmark that does not end has measured nothing. Nor is a device
whose memory nobody knows, because `large` would run out of it on most.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from bench import discovery
from bench.core.errors import UsageError, one_of
from bench.core.nouns import SIZES, Dtype
from bench.core.paths import split_phase
from bench.core.units import format_bytes
from bench.workload import Phase, Workload, memory_bytes_of

T = TypeVar("T")
Selected = tuple[discovery.Found, Phase]
ALL = ("imaging", "llm", "pathology", "speech", "genomics")
"""What `--workload all` takes; the rest would not be done in minutes: `everything` takes it too."""
CPU_SIZES = ("tiny", "small")
MARGIN_FRAC = 0.85
"""Share of the free memory that an estimate may take: estimates are rough, allocators fragment."""


def select(texts: tuple[str, ...], *, is_list: bool = False) -> list[Selected]:
    """Return the phases that --workload names, each once: all, medical, imaging:train, ./mine.py.

    A domain takes its workloads, `everything` those of every domain but the self-tests. But for a
    list, a served phase has to be named itself: only it takes --arrivals and no steps.
    `UsageError` lists what there is.
    """
    if not texts:
        raise UsageError("--workload is missing; `bench list` shows what there is")
    found = itertools.chain.from_iterable(_select_one(text, is_list=is_list) for text in texts)
    return list(dict.fromkeys(found))


def _select_one(text: str, *, is_list: bool) -> list[Selected]:
    name, phase_name = split_phase(text)
    every = _phases_of(name)
    if phase_name is None:
        is_all = is_list or len(every) == 1
        return every if is_all else [one for one in every if not one[1].is_served]
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
    shipped = [discovery.load(name) for name in discovery.names()]
    pairs = [(found, phase) for found in shipped for phase in found.cls.phases]
    if text == "all":
        return [one for one in pairs if one[0].name in ALL]
    if text == "everything":
        return [one for one in pairs if one[0].cls.domain != "selftest"]
    domains = sorted({found.cls.domain for found in shipped})
    if text in domains:
        return [one for one in pairs if one[0].cls.domain == text]
    named = {f"{found.name}-{phase.name}": (found, phase) for found, phase in pairs}
    matched = [one for name, one in named.items() if fnmatchcase(name, text) or one[0].name == text]
    if not matched:
        raise one_of(
            "workload",
            text,
            [*named, *domains, "all", "everything"],
            hint="(or a file such as ./mine.py)",
        )
    return matched


def passing(given: Iterable[T], check: Callable[[T], object]) -> list[T]:
    """Return what `check` lets pass; when it refuses all, raise why of the last."""
    passed: list[T] = []
    refused: UsageError | None = None
    for one in given:
        try:
            check(one)
        except UsageError as error:
            refused = error
        else:
            passed.append(one)
    if refused is not None and not passed:
        raise refused
    return passed


def memory_of(workload: Workload, phase: Phase, *, data: str, dtype: Dtype) -> int:
    """Return the estimate for this data: generated, resident or the path given with --data."""
    if data not in ("generated", "resident"):
        workload = workload.sized_for(phase, Path(data))
    return memory_bytes_of(workload, phase, dtype=dtype)


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
    data: str,
) -> SizeChoice:
    """Return the size asked for, else the largest that fits and that `check` lets pass.

    The smallest is refused where not even that fits; `UsageError` where `check` lets none pass.
    """

    def instance(name: str) -> Workload:
        return discovery.instance(found, size=name or None, overrides=overrides)

    def chosen(name: str, reason: str) -> SizeChoice:
        workload = instance(name)
        estimate = memory_of(workload, phase, data=data, dtype=dtype)
        return SizeChoice(name=name, reason=reason, workload=workload, estimate_bytes=estimate)

    if asked is not None:
        return chosen(asked, "user")
    every = [name for name in SIZES if name in found.cls.sizes]
    if is_cpu or free_bytes is None:
        every = [name for name in every if name in CPU_SIZES] or every[:1]
    candidates = passing(every, lambda name: check(instance(name)))
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
