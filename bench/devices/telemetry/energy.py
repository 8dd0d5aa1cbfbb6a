"""Energy of a measured window, from a hardware counter or from sampled power.

Counters beat sampling but sometimes lie (frozen in one process, far off at idle), so a counter is
used only where it moved and agrees within 15 % with the integral of sampled power. If it does not,
the integral is used and marked. If neither can be had the energy is blank: a datasheet's watts
times load never stand in for a measurement.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.devices.telemetry.common import Sample

MIN_WINDOW_S = 2.0
"""Counters tick every 20 to 100 ms: below this their edges alone cost over 5 %."""
MAX_GAP_S = 1.0
"""Ten missed samples in a row: power may have done anything meanwhile."""
MAX_DISAGREEMENT_FRAC = 0.15

_Point = tuple[float, float]
"""Time in seconds, and value."""


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


def _clipped(series: Sequence[_Point], *, start_s: float, end_s: float) -> list[_Point]:
    """The window's part, interpolated at both edges; empty where it is not covered throughout."""
    times_s = [time_s for time_s, _ in series]
    if not times_s or times_s[0] > start_s or times_s[-1] < end_s:
        return []
    first, last = bisect_right(times_s, start_s) - 1, bisect_left(times_s, end_s)
    covering = series[first : last + 1]
    if any(after_s - before_s > MAX_GAP_S for (before_s, _), (after_s, _) in pairwise(covering)):
        return []
    start = start_s, _between(*covering[:2], time_s=start_s)
    end = end_s, _between(*covering[-2:], time_s=end_s)
    return [start, *(point for point in covering if start_s < point[0] < end_s), end]


def _between(before: _Point, after: _Point, *, time_s: float) -> float:
    (before_s, low), (after_s, high) = before, after
    return low + (high - low) * (time_s - before_s) / (after_s - before_s)


def _integral(powers_w: Sequence[_Point]) -> float | None:
    """Trapezoids under the power."""
    areas_j = [
        (after_s - before_s) * (before_w + after_w) / 2.0
        for (before_s, before_w), (after_s, after_w) in pairwise(powers_w)
    ]
    return sum(areas_j) if areas_j else None


def _growth(counts_j: Sequence[_Point]) -> float | None:
    """Growth of the counter; None where it went backwards or did not move."""
    if not counts_j or any(after < before for (_, before), (_, after) in pairwise(counts_j)):
        return None
    return (counts_j[-1][1] - counts_j[0][1]) or None


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
    window_s = end_s - start_s
    if window_s < MIN_WINDOW_S:
        return Energy(idle_power_w=idle_power_w)
    powers = [(one.time_s, one.power_w) for one in samples if one.power_w is not None]
    counts = [(one.time_s, one.energy_j) for one in samples if one.energy_j is not None]
    integrated_j = _integral(_clipped(powers, start_s=start_s, end_s=end_s))
    counted_j = _growth(_clipped(counts, start_s=start_s, end_s=end_s))
    if powers and counted_j is not None:
        # A counter that cannot be checked, or failed the check, is not used.
        most_j = MAX_DISAGREEMENT_FRAC * (integrated_j or 0.0)
        is_confirmed = integrated_j is not None and abs(counted_j - integrated_j) <= most_j
        counted_j = counted_j if is_confirmed else None
    energy_j = counted_j if counted_j is not None else integrated_j
    if energy_j is None:
        return Energy(idle_power_w=idle_power_w)
    return Energy(
        energy_j=energy_j,
        energy_net_j=None if idle_power_w is None else energy_j - idle_power_w * window_s,
        energy_integrated_j=integrated_j,
        energy_source="integrated" if counted_j is None else "counter",
        energy_scope=scope,
        power_mean_w=energy_j / window_s,
        idle_power_w=idle_power_w,
        is_unvalidated=bool(counts) and counted_j is None,
    )
