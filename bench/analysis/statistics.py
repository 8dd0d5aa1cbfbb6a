"""Comparisons of logarithms of trials, many at once.

Times, energies and memory are compared as ratios, so everything works on logarithms: a difference
of means of logs is the log of a ratio of geometric means. Arrays hold one entry per comparison,
because files of 100,000 rows hold tens of thousands of them. numpy and the standard
library only. Functions of one series are in `bench.core.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bench.core.statistics import t_cdf, t_quantile

if TYPE_CHECKING:
    from numpy.polynomial import Chebyshev
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_UPPER = 0.975
"""Probability under the upper end of a two-sided 95 % interval."""


@cache
def _log_quantile_by_reciprocal() -> Chebyshev:
    # Over 1 / degrees in (0, 1] the log of the quantile is so smooth that 21 points give 12 digits.
    from numpy.polynomial import Chebyshev

    def log_quantiles(reciprocals: Array) -> Array:
        return np.array([math.log(t_quantile(_UPPER, 1.0 / r)) for r in reciprocals])

    return Chebyshev.interpolate(log_quantiles, 20, domain=[1e-9, 1.0])


def t_upper_quantiles(degrees: Array) -> Array:
    """97.5 % quantile of Student's t for each of `degrees`, all at least 1; NaN gives NaN."""
    if np.any(degrees < 1.0):
        raise ValueError("degrees of freedom under 1")
    quantiles: Array = np.exp(_log_quantile_by_reciprocal()(1.0 / degrees))
    return quantiles


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Differences B - A of mean logarithms; an entry is NaN where a side has under two trials."""

    estimate: Array
    error: Array
    """Standard error."""
    degrees: Array
    half_width: Array
    """Of the 95 % interval."""

    @property
    def low(self) -> Array:
        """Lower end of the 95 % interval."""
        return self.estimate - self.half_width

    @property
    def high(self) -> Array:
        """Upper end of the 95 % interval."""
        return self.estimate + self.half_width


def _with_intervals(estimate: Array, *, error: Array, degrees: Array) -> Differences:
    # A counter of bytes may be equal in all trials: no spread, and no degrees of freedom to take
    # a quantile at; the interval is the point.
    has_spread = error > 0.0
    quantiles = t_upper_quantiles(np.where(has_spread, degrees, np.nan))
    half_width = np.where(error == 0.0, 0.0, quantiles * error)
    return Differences(estimate=estimate, error=error, degrees=degrees, half_width=half_width)


def welch(
    *, num_a: Array, mean_a: Array, var_a: Array, num_b: Array, mean_b: Array, var_b: Array
) -> Differences:
    """Welch's t interval of mean_b - mean_a; variances are of single trials (n - 1 below).

    Welch, Biometrika 34 (1947), https://doi.org/10.1093/biomet/34.1-2.28
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        part_a, part_b = var_a / num_a, var_b / num_b
        squared = part_a + part_b
        degrees = squared**2 / (part_a**2 / (num_a - 1.0) + part_b**2 / (num_b - 1.0))
    enough = (num_a >= 2) & (num_b >= 2)
    error = np.where(enough, np.sqrt(squared), np.nan)
    # Rounding may leave the degrees a hair under their least value, min(n) - 1.
    least = np.maximum(np.minimum(num_a, num_b) - 1.0, 1.0)
    return _with_intervals(mean_b - mean_a, error=error, degrees=np.fmax(degrees, least))


def paired(differences: Sequence[float]) -> Differences:
    """Paired t interval of the mean of B - A, one difference of logs per pair or block."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"a paired interval needs two pairs, not {len(values)}")
    error = np.array([values.std(ddof=1) / math.sqrt(len(values))])
    degrees = np.array([len(values) - 1.0])
    return _with_intervals(np.array([values.mean()]), error=error, degrees=degrees)


def p_values_beyond(differences: Differences, *, margin: Array) -> Array:
    """Two-sided p of "the difference is no larger than the margin"; 1 where that is not in doubt.

    Below .05 exactly where the 95 % interval lies wholly beyond the margin on one side.
    """
    result = np.ones(len(differences.estimate))
    nearest = np.maximum(differences.low - margin, -margin - differences.high)
    for i in np.flatnonzero(nearest > 0.0):
        distance = abs(differences.estimate[i]) - margin[i]
        error = differences.error[i]
        degrees = differences.degrees[i]
        result[i] = 2.0 * t_cdf(-distance / error, degrees) if error > 0.0 else 0.0
    return result


def benjamini_hochberg(p_values: Array, *, q: float = 0.05) -> NDArray[np.bool_]:
    """Which hypotheses are rejected when the expected share of false ones is held at `q`.

    Benjamini and Hochberg, JRSS B 57 (1995), https://doi.org/10.1111/j.2517-6161.1995.tb02031.x
    """
    num = len(p_values)
    ordered = np.sort(p_values)
    passing = np.flatnonzero(ordered <= q * np.arange(1, num + 1) / num)
    limit = ordered[passing[-1]] if len(passing) else -1.0
    return np.asarray(p_values <= limit)


def trials_to_settle(differences: Differences, *, margin: Array, num: Array) -> Array:
    """Trials per side, beyond `num`, until the interval should leave the margin; NaN: over 1000.

    Takes the estimate and its error as true, so it is a planning figure, not a promise.
    """
    distance = np.abs(np.abs(differences.estimate) - margin)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = (1.96 * differences.error / distance) ** 2 * num
        for _ in range(8):
            degrees = np.maximum(2.0 * needed - 2.0, 1.0)
            needed = (t_upper_quantiles(degrees) * differences.error / distance) ** 2 * num
        more = np.maximum(np.ceil(needed - num), 1.0)
    return np.where(more <= 1000.0, more, np.nan)
