"""When a configuration is known well enough, and how long its next window should be.

The interval is over trials: only more trials narrow what differs between processes, a longer window
narrows what differs between steps as well. Both variances are estimated from the trials so far;
with what a trial takes before its window they give the cheapest way to the wanted half width.
Precision alone counts, never what is shown. A few trials may look precise by chance, so three are
enough only at a quarter of the half width: then the 95 % interval covers the truth in 93 % of runs
or more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, variance

from bench.core.statistics import mean_interval_log, t_quantile
from bench.measure.timing.limits import Limits, Profile
from bench.results.schema import Row, has_unequal_steps

_STARTING = ("import_s", "build_s", "transfer_s", "first_step_s", "warmup_s")
_FEW_TRIALS = 3


def is_precise(rows: Sequence[Row], *, effort: Profile) -> bool:
    """Whether the interval of the mean over these usable rows is as narrow as was asked for."""
    medians_ms = _steps_ms(rows)
    interval = mean_interval_log(medians_ms) if len(medians_ms) >= _FEW_TRIALS else None
    if interval is None:
        return False
    middle, low, high = interval
    return (high - low) / 2 / middle <= _wanted_frac(len(medians_ms), effort=effort)


def _wanted_frac(num_trials: int, *, effort: Profile) -> float:
    return effort.target_half_width_frac * (0.25 if num_trials <= _FEW_TRIALS else 1.0)


def next_limits(rows: Sequence[Row], *, effort: Profile) -> Limits:
    """Limits of the next trial: the window is chosen where two trials show how they spread.

    All later trials are assumed to have it; it stays within the bounds of the limits.
    """
    limits = effort.limits
    medians_ms, windows_s = _steps_ms(rows), _floats(rows, "window_s")
    half_widths = _floats(rows, "rel_ci95_frac")
    num = len(medians_ms)
    if num < 2 or len(half_widths) != num or len(windows_s) != num:
        return limits
    within = fmean((one / 2) ** 2 for one in half_widths)
    within_s = fmean((one / 2) ** 2 * s for one, s in zip(half_widths, windows_s, strict=True))
    between = max(0.0, variance(map(math.log, medians_ms)) - within)
    fixed_s = sum(sum(_floats(rows, name)) for name in _STARTING) / num
    ways = []
    for count in range(max(effort.min_trials, num + 1), effort.max_trials + 1):
        allowed = count * (_wanted_frac(count, effort=effort) / t_quantile(0.975, count - 1)) ** 2
        if allowed > between:
            window_s = max(limits.window_min_s, within_s / (allowed - between))
            if window_s <= limits.window_max_s:
                ways.append(((count - num) * (fixed_s + window_s), window_s))
    # The least variance for the time, where no number of trials suffices.
    best_s = math.sqrt(fixed_s * within_s / between) if between else limits.window_max_s
    best_s = min(max(limits.window_min_s, best_s), limits.window_max_s)
    _, window_s = min(ways, default=(0.0, best_s))
    return replace(limits, window_min_s=window_s, window_max_s=window_s)


def _steps_ms(rows: Sequence[Row]) -> list[float]:
    """What trials are compared by: the median step, or the mean where steps are not alike."""
    is_mean = any(map(has_unequal_steps, rows))
    return _floats(rows, "step_mean_ms" if is_mean else "step_median_ms")


def _floats(rows: Sequence[Row], name: str) -> list[float]:
    """Values above zero of a column."""
    values = (row.get(name) for row in rows)
    return [value for value in values if isinstance(value, float) and value > 0]
