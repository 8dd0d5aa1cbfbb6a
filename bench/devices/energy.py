"""Energy of a measured window, from a hardware counter or from sampled power.

Counters beat sampling but sometimes lie (frozen in one process, far off at idle), so a counter is
used only where it moved and agrees within 15 % with the integral of sampled power. If it does not,
the integral is used and marked. If neither can be had the energy is blank: a datasheet's watts
times load never stand in for a measurement.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.devices.telemetry import Sample

MIN_WINDOW_S = 2.0
"""Counters tick every 20 to 100 ms: below this their edges alone cost over 5 %."""
MAX_GAP_S = 1.0
"""Ten missed samples in a row: power may have done anything meanwhile."""
MAX_DISAGREEMENT_FRAC = 0.15

_Series = Sequence[tuple[float, float]]
"""(time_s, value) in order of time."""


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy over one window; all blank with a `reason` where it could not be measured."""

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
    reason: str | None = None
    """Why something is blank or unchecked."""


def _covering(series: _Series, *, start_s: float, end_s: float) -> _Series:
    """The part from the last point at or before the window to the first at or after it."""
    times_s = [time_s for time_s, _ in series]
    first = bisect_left(times_s, start_s)
    if first == len(times_s) or times_s[first] > start_s:
        first -= 1
    last = bisect_left(times_s, end_s)
    return series[max(0, first) : last + 1]


def _fault(series: _Series, *, start_s: float, end_s: float) -> str | None:
    """Why a series cannot be used over the window, or None."""
    if not series or series[0][0] > start_s or series[-1][0] < end_s:
        return "samples do not cover the window"
    covering = _covering(series, start_s=start_s, end_s=end_s)
    longest_s = max((after[0] - before[0] for before, after in pairwise(covering)), default=0.0)
    if longest_s > MAX_GAP_S:
        return f"no sample for {longest_s:.1f} s"
    return None


def _value_at(series: _Series, time_s: float) -> float:
    """Linear interpolation; the series must cover `time_s`."""
    after = bisect_left([moment for moment, _ in series], time_s)
    (after_s, high) = series[after]
    if after_s == time_s or after == 0:
        return high
    (before_s, low) = series[after - 1]
    return low + (high - low) * (time_s - before_s) / (after_s - before_s)


def _integrated(
    series: _Series, *, start_s: float, end_s: float
) -> tuple[float | None, str | None]:
    """Trapezoids under the power, interpolated at the window's edges; or None and why."""
    fault = _fault(series, start_s=start_s, end_s=end_s)
    if fault is not None:
        return None, fault
    points = [
        (start_s, _value_at(series, start_s)),
        *((time_s, value) for time_s, value in series if start_s < time_s < end_s),
        (end_s, _value_at(series, end_s)),
    ]
    areas_j = [
        (after_s - before_s) * (before + after) / 2.0
        for (before_s, before), (after_s, after) in pairwise(points)
    ]
    return sum(areas_j), None


def _counted(series: _Series, *, start_s: float, end_s: float) -> tuple[float | None, str | None]:
    """Growth of the counter over the window, or None and why."""
    fault = _fault(series, start_s=start_s, end_s=end_s)
    if fault is not None:
        return None, fault
    covering = _covering(series, start_s=start_s, end_s=end_s)
    if any(after < before for (_, before), (_, after) in pairwise(covering)):
        return None, "the energy counter went backwards"
    counted_j = _value_at(series, end_s) - _value_at(series, start_s)
    return (counted_j, None) if counted_j > 0 else (None, "the energy counter did not move")


def _disagreement(counted_j: float | None, *, integrated_j: float | None) -> str | None:
    """Why the counter fails the check against sampled power, or None."""
    if counted_j is None or integrated_j is None:
        return None
    if abs(counted_j - integrated_j) <= MAX_DISAGREEMENT_FRAC * integrated_j:
        return None
    return (
        f"the energy counter says {counted_j:.4g} J where sampled power adds up to "
        f"{integrated_j:.4g} J"
    )


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
    any sampled power beside it (RAPL) is used if it moves; `reason` then says that it is unchecked.
    """
    window_s = end_s - start_s
    if window_s < MIN_WINDOW_S:
        return Energy(idle_power_w=idle_power_w, reason=f"the window is under {MIN_WINDOW_S:.0f} s")
    powers = [(one.time_s, one.power_w) for one in samples if one.power_w is not None]
    counts = [(one.time_s, one.energy_j) for one in samples if one.energy_j is not None]
    if not powers and not counts:
        return Energy(idle_power_w=idle_power_w, reason="the device gives neither power nor energy")
    counted_j, reason = _counted(counts, start_s=start_s, end_s=end_s) if counts else (None, None)
    integrated_j: float | None = None
    if powers:
        integrated_j, power_fault = _integrated(powers, start_s=start_s, end_s=end_s)
        reason = power_fault or reason or _disagreement(counted_j, integrated_j=integrated_j)
        if reason is not None:  # a counter that cannot be checked, or failed the check, is not used
            counted_j = None
    elif counted_j is not None:
        reason = "no sampled power to check the energy counter against"
    energy_j = counted_j if counted_j is not None else integrated_j
    if energy_j is None:
        return Energy(idle_power_w=idle_power_w, reason=reason)
    return Energy(
        energy_j=energy_j,
        energy_net_j=None if idle_power_w is None else energy_j - idle_power_w * window_s,
        energy_integrated_j=integrated_j,
        energy_source="integrated" if counted_j is None else "counter",
        energy_scope=scope,
        power_mean_w=energy_j / window_s,
        idle_power_w=idle_power_w,
        is_unvalidated=bool(counts) and counted_j is None,
        reason=reason,
    )
