"""Statistics of one series: how many samples it is worth, and how well its mean is known.

What a trial needs while it runs (when to stop, what to report) and what every table needs (an
interval over trials). Standard library only, so that measuring costs no import; a series of 20,000
steps takes some 30 ms. Comparisons between series are in `bench.analysis`.

Quantiles and probabilities are fractions: 0.9, not 90.
"""

import math
import sys
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from statistics import fmean

_LARGEST_LOG = math.log(sys.float_info.max)
_MIN_BATCHES = 10
_MAX_BATCHES = 32
# Sokal's rule: the sum of autocorrelations is cut at the first lag beyond this many times its
# value. Sokal, "Monte Carlo Methods in Statistical Mechanics", section 3,
# https://doi.org/10.1007/978-1-4899-0319-8_6
_WINDOW_FACTOR = 5.0
_MAX_LAG = 20


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _beta_fraction(x: float, *, a: float, b: float) -> float:
    """Continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    tiny = 1e-300
    numerator, denominator = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    denominator = 1.0 / (denominator if abs(denominator) > tiny else tiny)
    result = denominator
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            denominator = 1.0 + term * denominator
            denominator = 1.0 / (denominator if abs(denominator) > tiny else tiny)
            numerator = 1.0 + term / numerator
            numerator = numerator if abs(numerator) > tiny else tiny
            change = denominator * numerator
            result *= change
        if abs(change - 1.0) < 1e-15:
            break
    return result


def _incomplete_beta(x: float, *, a: float, b: float) -> float:
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - _log_beta(a, b))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _beta_fraction(x, a=a, b=b) / a
    return 1.0 - front * _beta_fraction(1.0 - x, a=b, b=a) / b


def _t_upper_tail(t: float, degrees: float) -> float:
    """P(T > t) for t >= 0; accurate far into the tail."""
    return 0.5 * _incomplete_beta(degrees / (degrees + t * t), a=degrees / 2.0, b=0.5)


def _t_density(t: float, degrees: float) -> float:
    log_scale = -0.5 * math.log(degrees) - _log_beta(0.5, degrees / 2.0)
    return math.exp(log_scale - 0.5 * (degrees + 1.0) * math.log1p(t * t / degrees))


def t_cdf(t: float, degrees: float) -> float:
    """P(T <= t) for Student's t; `degrees` need not be whole."""
    if degrees <= 0:
        raise ValueError(f"degrees of freedom must be positive, not {degrees}")
    tail = _t_upper_tail(abs(t), degrees)
    return 1.0 - tail if t >= 0 else tail


@lru_cache(maxsize=4096)
def t_quantile(p: float, degrees: float) -> float:
    """Value that Student's t stays under with probability `p`; `degrees` need not be whole."""
    if not 0.0 < p < 1.0 or degrees <= 0:
        raise ValueError(f"needs 0 < p < 1 and positive degrees, not {p} and {degrees}")
    if p == 0.5:
        return 0.0
    tail = min(p, 1.0 - p)
    low, high = 0.0, 1.0
    while _t_upper_tail(high, degrees) > tail:
        low, high = high, high * 2.0
    value = 0.5 * (low + high)
    for _ in range(200):  # Newton's method inside a shrinking bracket
        excess = _t_upper_tail(value, degrees) - tail
        low, high = (value, high) if excess > 0.0 else (low, value)
        newton = value + excess / _t_density(value, degrees)
        following = newton if low < newton < high else 0.5 * (low + high)
        if abs(following - value) <= 1e-14 * value:
            break
        value = following
    return value if p > 0.5 else -value


def median(values: Sequence[float]) -> float:
    """Middle value, or the mean of the two middle ones."""
    return percentile(values, 0.5)


def percentile(values: Sequence[float], q: float) -> float:
    """Quantile at fraction `q` (0.95, not 95), interpolated linearly as numpy does by default."""
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"q is a fraction from 0 to 1, not {q}")
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a percentile of no values")
    position = q * (len(ordered) - 1)
    index = math.floor(position)
    above = ordered[min(index + 1, len(ordered) - 1)]
    return ordered[index] + (above - ordered[index]) * (position - index)


def _deviations(values: Sequence[float]) -> tuple[list[float], float]:
    mean = fmean(values)
    deviations = [value - mean for value in values]
    mean_square: float = sum(map(mul, deviations, deviations)) / len(deviations)
    return deviations, mean_square


def _windowed_time(deviations: Sequence[float], variance: float) -> float | None:
    """Sokal's estimate, or None when the window does not close within `_MAX_LAG` lags."""
    time, length = 1.0, len(deviations)
    for lag in range(1, min(_MAX_LAG, length - 1) + 1):
        product: float = sum(map(mul, deviations, deviations[lag:])) / length
        time += 2.0 * product / variance
        if lag >= _WINDOW_FACTOR * time:
            return time
    return None


def autocorrelation_time(values: Sequence[float]) -> float:
    """Integrated autocorrelation time in samples: 1 + 2 x the sum of autocorrelations, at least 1.

    Where correlation reaches beyond a few lags, neighbours are averaged in pairs and the shorter
    series is looked at: n x the variance of the mean stays the same, so its time is known in terms
    of the longer one, and the cost stays linear in the number of samples. A series too short to
    settle the question counts as one sample.
    """
    if len(values) < 2:
        return 1.0
    scale = max(abs(value) for value in values)
    deviations, variance = _deviations(values)
    # Rounding alone leaves about 1e-16 of the scale: such a series is constant.
    if variance <= (1e-14 * scale) ** 2:
        return 1.0
    first_variance, block, level = variance, 1, deviations
    while len(level) >= 2:
        time = _windowed_time(level, variance) if variance > 0.0 else 1.0
        if time is not None:
            return min(max(1.0, time * block * variance / first_variance), float(len(values)))
        halved = [0.5 * (a + b) for a, b in zip(level[::2], level[1::2], strict=False)]
        block *= 2
        level, variance = _deviations(halved)
    return float(len(values))


def effective_sample_size(values: Sequence[float]) -> float:
    """Number of independent samples that would know the mean as well as this series does."""
    return len(values) / autocorrelation_time(values)


def batch_means_half_width_frac(values: Sequence[float]) -> float | None:
    """Half width of the 95 % interval of the mean, over the mean, from means of batches.

    At least 10 batches, each longer than 3 autocorrelation times, so that batch means are nearly
    independent. None when the series is too short for that or its mean is not positive.
    """
    shortest = math.floor(3.0 * autocorrelation_time(values)) + 1 if values else 1
    num_batches = min(len(values) // shortest, _MAX_BATCHES)
    if num_batches < _MIN_BATCHES:
        return None
    length = len(values) // num_batches
    used = values[len(values) - num_batches * length :]
    means = [fmean(used[i : i + length]) for i in range(0, len(used), length)]
    mean, half_width = _mean_interval(means)
    return half_width / mean if mean > 0.0 else None


def percentile_bound(values: Sequence[float], q: float, confidence: float = 0.99) -> float | None:
    """Value that the true quantile `q` lies under with `confidence`: MLPerf's early stopping.

    The slowest t values are discarded, with t as large as the binomial distribution allows; what is
    then the slowest is the bound. At least one must be discardable, which takes 64 values at 0.9,
    130 at 0.95 and 662 at 0.99; under that, None.
    https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc (Appendix)
    """
    if not 0.0 < q < 1.0 or not 0.0 < confidence < 1.0:
        raise ValueError(f"q and confidence are fractions inside (0, 1), not {q} and {confidence}")
    num = len(values)

    def chance(discarded: int) -> float:
        """P(Binomial(num, 1 - q) <= discarded)."""
        return _incomplete_beta(q, a=num - discarded, b=discarded + 1)

    num_discarded = bisect_right(range(num), 1.0 - confidence, key=chance) - 1
    return None if num_discarded < 1 else sorted(values)[num - 1 - num_discarded]


def mean_interval_log(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Geometric mean with its 95 % t interval on the log scale: (mean, low, high).

    One value is one trial. None under two values, since a single one has no interval, and where
    the interval is wider than a float can say.
    """
    if len(values) < 2:
        return None
    logs = [math.log(value) for value in values]
    mean, half_width = _mean_interval(logs)
    if mean + half_width > _LARGEST_LOG:
        return None
    return math.exp(mean), math.exp(mean - half_width), math.exp(mean + half_width)


def _mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of independent values, and the half width of its 95 % t interval."""
    _, mean_square = _deviations(values)
    error = math.sqrt(mean_square / (len(values) - 1))
    return fmean(values), t_quantile(0.975, len(values) - 1) * error
