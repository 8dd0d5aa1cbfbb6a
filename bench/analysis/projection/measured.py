"""What was measured, as a projection starts from it: one configuration on one device.

Trials of a configuration are taken together by their median. Only one real device is a start: a row
of several devices, or one that was throttled, emulated or simulated, already has a model in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.analysis.projection.roofs import Roofs, Unknown
from bench.analysis.projection.source_figures import source_operators, source_roofs
from bench.analysis.trials.configuration import Trials, gather, number
from bench.analysis.trials.estimates import LogEstimate, exact
from bench.hardware.operators import Operators
from bench.results.operator_profiles import StoredProfile, read_profiles
from bench.results.schema import Row

_ALONE = (
    "that stands beside a projection from the whole device, and the files hold no start of the "
    "same configuration on the whole of it"
)

_NO_ROOF = (
    "the device's roof was not measured (smoke profile?): run it again without --profile smoke"
)
BOUND = (
    "less of a device is no other chip: what a limit does not name (bandwidth, caches, clocks) "
    "stays whole, so where memory holds the work it is an upper bound for a chip cut down alike"
)


@dataclass(frozen=True, kw_only=True)
class Limited:
    """One configuration on part of the device (`--chip-limit`) that it was measured on whole.

    It is no start, because no roof of the limited device is known; it brackets a projection.
    """

    limit: str
    """As granted: `this device with 72 SMs (78 asked), 24.0 GB of memory`."""
    throughput_per_s: LogEstimate
    """Items per second, from each trial's median step."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """One configuration that was measured on one device."""

    workload: str
    size: str
    config_hash: str
    dtype: str
    device: str
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
    limited: tuple[Limited, ...] = ()
    """The same on less of the same device, where that was measured."""

    @property
    def is_training(self) -> bool:
        """Whether gradients are there to be exchanged between devices."""
        return self.workload.endswith("-train")

    @property
    def throughput_per_s(self) -> float:
        """Items per second."""
        return self.items_per_step / self.step_s


def measured_of(
    rows: Sequence[Row], *, profiles: Mapping[tuple[str, str], StoredProfile]
) -> tuple[list[Start], list[Unknown]]:
    """Gather usable rows into configurations; `profiles` by (config_hash, device label).

    Rows of less of a device are no start: they stand beside that of the same configuration.
    """
    left_out: dict[Unknown, None] = {}
    whole: list[Trials] = []
    limited: dict[tuple[str, ...], list[Trials]] = {}
    for trials in gather(rows):
        reasons = list(_why_not(trials))
        left_out |= {Unknown(workload=trials.text("workload"), reason=r): None for r in reasons}
        if not reasons and trials.text("chip_limit"):
            limited.setdefault(trials.terms(but=("chip_limit",)), []).append(trials)
        elif not reasons:
            whole.append(trials)
    found = []
    for trials in whole:
        terms = trials.terms(but=("chip_limit",))
        profile = profiles.get((trials.text("config_hash"), trials.text("device")))
        less = tuple(map(_limited, limited.get(terms, ())))
        start = _measured(trials, profile=profile, limited=less)
        if isinstance(start, Unknown):
            left_out[start] = None
        else:
            found.append(start)
            limited.pop(terms, None)
    for trials in (one for alone in limited.values() for one in alone):
        reason = f"measured on {trials.text('chip_limit')}: {_ALONE}"
        left_out[Unknown(workload=trials.text("workload"), reason=reason)] = None
    return found, list(left_out)


def _limited(trials: Trials) -> Limited:
    assert trials.time_per_item_s is not None
    rate = exact(1.0).over(trials.time_per_item_s)
    return Limited(limit=trials.text("chip_limit"), throughput_per_s=rate)


def _why_not(trials: Trials) -> Iterator[str]:
    """Why trials say nothing of one real device, whole or limited; nothing where they do."""
    limit = trials.text("chip_limit")
    where = f" on {limit}" if limit else ""
    if not trials.used:
        for row in trials.rows:
            why = f": {row['reasons']}" if row.get("reasons") else ""
            yield f"no usable trial{where} ({row['status']}{why})"
    elif trials.mode != "real":
        yield f"{trials.mode}: a projection starts from what was really measured"
    elif trials.num_devices > 1:
        yield "measured on several devices: a projection starts from one"
    elif trials.text("device_type") == "fake":
        yield "the fake device has no roofs"
    elif where and trials.time_per_item_s is None:
        yield f"no step time was measured{where}"


def _measured(
    trials: Trials, *, profile: StoredProfile | None, limited: tuple[Limited, ...]
) -> Start | Unknown:
    workload = trials.text("workload")
    steps_ms = trials.figures(lambda row: number(row, "step_median_ms"))
    items, steps = trials.median("items"), trials.median("steps")
    roofs = source_roofs(trials)
    if not steps_ms or items is None or steps is None:
        return Unknown(workload=workload, reason="no step time was measured")
    if roofs is None:
        return Unknown(workload=workload, reason=_NO_ROOF)
    step_s, per_step = median(steps_ms) * 1e-3, items / steps
    parameters = trials.median("num_parameters")
    return Start(
        workload=workload,
        size=trials.text("size"),
        config_hash=trials.text("config_hash"),
        dtype=trials.text("dtype"),
        device=trials.text("device_name"),
        num_trials=len(steps_ms),
        batch=int(number(trials.first, "batch") or 1),
        step_s=step_s,
        step_spread=max(steps_ms) / min(steps_ms),
        items_per_step=per_step,
        items_unit=trials.text("items_unit") or "item",
        roofs=roofs,
        operators=source_operators(trials, step_s=step_s, items=per_step, profile=profile),
        has_profile=profile is not None,
        overhead_s=0.0 if profile is None else step_s * (1.0 - profile.covered_frac),
        num_parameters=None if parameters is None else int(parameters),
        memory_bytes=trials.median("mem_alloc_peak_bytes") or trials.median("mem_estimate_bytes"),
        limited=limited,
    )


def profiles_beside(paths: Sequence[Path]) -> dict[tuple[str, str], StoredProfile]:
    """Profiles stored beside result files, by (config_hash, device label)."""
    found: dict[tuple[str, str], StoredProfile] = {}
    for path in paths:
        found |= read_profiles(path)
    return found
