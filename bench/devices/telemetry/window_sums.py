"""What was sampled during a measured window: its energy, and the heat and clocks it is judged by.

Counters beat sampling but sometimes lie (frozen in one process, far off at idle), so a counter is
used only where it moved, never went back or jumped, and agrees within 15 % with the integral of
sampled power. If it does not, the integral is used and marked. If neither can be had the energy is
blank, with the reason: a datasheet's watts times load never stand in for a measurement.

Conditions are shares of samples. What sampling misses is in the driver's own counters, before and
after. Nothing here looks at how long the steps took.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.devices.telemetry.bounds import is_jump
from bench.devices.telemetry.common import THROTTLE_REASONS, Sample

MIN_WINDOW_S = 2.0
"""Counters tick every 20 to 100 ms: below this their edges alone cost over 5 %."""
MAX_GAP_S = 1.0
"""Ten missed samples in a row: power may have done anything meanwhile."""
MAX_DISAGREEMENT_FRAC = 0.15


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy over one window; all blank where it could not be measured."""

    energy_j: float | None = None
    energy_net_j: float | None = None
    """Idle power over the window taken off."""
    energy_integrated_j: float | None = None
    energy_source: str | None = None
    """counter, integrated, or None."""
    energy_scope: str | None = None
    power_mean_w: float | None = None
    idle_power_w: float | None = None
    is_unvalidated: bool = False
    """Whether a counter exists but was not used, because it disagreed with sampled power."""
    counter_problem: str | None = None
    """What is wrong with the counter's own course, whatever power says."""


def _series(
    samples: Sequence[Sample], name: str, *, start_s: float, end_s: float
) -> tuple[Any, Any]:
    """Times and values of a reading in the window, with both edges; empty unless all is covered."""
    import numpy as np  # not when a run starts: it takes longer than all the rest of this file

    known = [one for one in samples if getattr(one, name) is not None]
    times_s = np.array([one.time_s for one in known])
    values = np.array([getattr(one, name) for one in known])
    nothing = times_s[:0], values[:0]
    if not known or times_s[0] > start_s or times_s[-1] < end_s:
        return nothing
    first = np.searchsorted(times_s, start_s, side="right") - 1
    covering_s = times_s[first : np.searchsorted(times_s, end_s) + 1]
    if np.diff(covering_s).max(initial=0.0) > MAX_GAP_S:
        return nothing
    inside_s = times_s[(times_s > start_s) & (times_s < end_s)]
    points_s = np.concatenate([[start_s], inside_s, [end_s]])
    return points_s, np.interp(points_s, times_s, values)


def _counter_problem(times_s: Any, counts_j: Any) -> str | None:
    """Say what no counter of energy does: stand still, go back, gain more than a device draws."""
    import numpy as np  # as above

    gains_j = np.diff(counts_j)
    if counts_j.size and not gains_j.any():
        return "the energy counter stood still"
    for gained_j, elapsed_s in zip(gains_j, np.diff(times_s), strict=True):
        if is_jump(gained_j, elapsed_s=elapsed_s):
            how = "went back by" if gained_j < 0 else "jumped by"
            return f"the energy counter {how} {abs(gained_j):,.6g} J within {elapsed_s:.2g} s"
    return None


def window_energy(
    samples: Sequence[Sample],
    *,
    start_s: float,
    end_s: float,
    idle_power_w: float | None,
    scope: str,
) -> Energy:
    """Energy between two moments of time.monotonic().

    `samples` must be in order of time and begin before and end after the window. A counter without
    any sampled power beside it (RAPL) is used if it moves.
    """
    import numpy as np

    window_s = end_s - start_s
    if window_s < MIN_WINDOW_S:
        return Energy(idle_power_w=idle_power_w)
    points_s, powers_w = _series(samples, "power_w", start_s=start_s, end_s=end_s)
    counted_s, counts_j = _series(samples, "energy_j", start_s=start_s, end_s=end_s)
    integrated_j = float(np.trapezoid(powers_w, points_s)) if powers_w.size else None
    problem = _counter_problem(counted_s, counts_j)
    counted_j = float(counts_j[-1] - counts_j[0]) if counts_j.size and not problem else None
    if counted_j is not None and any(one.power_w is not None for one in samples):
        # A counter that cannot be checked, or failed the check, is not used.
        most_j = MAX_DISAGREEMENT_FRAC * (integrated_j or 0.0)
        is_confirmed = integrated_j is not None and abs(counted_j - integrated_j) <= most_j
        counted_j = counted_j if is_confirmed else None
    energy_j = counted_j if counted_j is not None else integrated_j
    if energy_j is None:
        return Energy(idle_power_w=idle_power_w, counter_problem=problem)
    has_counter = any(one.energy_j is not None for one in samples)
    return Energy(
        energy_j=energy_j,
        energy_net_j=None if idle_power_w is None else energy_j - idle_power_w * window_s,
        energy_integrated_j=integrated_j,
        energy_source="integrated" if counted_j is None else "counter",
        energy_scope=scope,
        power_mean_w=energy_j / window_s,
        idle_power_w=idle_power_w,
        is_unvalidated=has_counter and counted_j is None,
        counter_problem=problem,
    )


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the device was like during a window; None where it did not say."""

    temp_start_c: float | None = None
    temp_max_c: float | None = None
    sm_clock_mean_hz: float | None = None
    sm_clock_min_hz: float | None = None
    throttle_frac: float | None = None
    """Share of samples with any slow-down that spoils a trial."""
    power_brake_frac: float | None = None
    power_limited_frac: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    """Every reason seen, in alphabetical order; harmless ones included."""


def window_conditions(samples: Sequence[Sample], *, start_s: float, end_s: float) -> Conditions:
    """Sum up the samples that lie in the window; the first temperature may be from just before."""
    heats = [(one.time_s, one.temperature_c) for one in samples if one.temperature_c is not None]
    before_c = [heat_c for time_s, heat_c in heats if time_s <= start_s]
    temps_c = [heat_c for time_s, heat_c in heats if start_s <= time_s <= end_s]
    inside = [one for one in samples if start_s <= one.time_s <= end_s]
    clocks_hz = [one.sm_clock_hz for one in inside if one.sm_clock_hz is not None]
    reasons = [one.throttle_reasons for one in inside if one.throttle_reasons is not None]

    def share(spoiling: frozenset[str]) -> float | None:
        return fmean(bool(seen & spoiling) for seen in reasons) if reasons else None

    return Conditions(
        temp_start_c=next(iter(before_c[-1:] + temps_c[:1]), None),
        temp_max_c=max(temps_c, default=None),
        sm_clock_mean_hz=fmean(clocks_hz) if clocks_hz else None,
        sm_clock_min_hz=min(clocks_hz, default=None),
        throttle_frac=share(THROTTLE_REASONS),
        power_brake_frac=share(frozenset({"power_brake"})),
        power_limited_frac=share(frozenset({"sw_power_cap"})),
        throttle_reasons=tuple(sorted(frozenset().union(*reasons))),
    )
