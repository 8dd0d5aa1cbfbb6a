"""Statistics of one series against scipy, hand-worked numbers and series of known correlation."""

import math
import random
import statistics as stdlib_statistics
import time
from typing import Any

import pytest

from bench.core.statistics import (
    autocorrelation_time,
    batch_means_half_width_frac,
    effective_sample_size,
    mean_interval_log,
    median,
    percentile,
    percentile_bound,
    t_cdf,
    t_quantile,
)


def correlated(phi: float, *, num: int, seed: int) -> list[float]:
    """AR(1) series around 100 with unit variance; its time is (1 + phi) / (1 - phi)."""
    source = random.Random(seed)
    values, state = [], source.gauss(0.0, 1.0)
    for _ in range(num):
        values.append(100.0 + state)
        state = phi * state + math.sqrt(1.0 - phi * phi) * source.gauss(0.0, 1.0)
    return values


@pytest.mark.parametrize("degrees", [0.7, 1.0, 2.0, 3.3, 8.0, 29.0, 1e4])
def test_t_quantile_and_cdf_agree_with_scipy(degrees: float) -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    assert t_cdf(1.7, degrees) == pytest.approx(float(stats.t.cdf(1.7, degrees)), rel=1e-11)
    for p in (1e-5, 0.025, 0.3, 0.9, 0.975, 0.995):
        assert t_quantile(p, degrees) == pytest.approx(float(stats.t.ppf(p, degrees)), rel=1e-9)
        assert t_cdf(t_quantile(p, degrees), degrees) == pytest.approx(p, rel=1e-10)
    assert t_quantile(0.5, degrees) == 0.0


def test_percentile_interpolates_and_what_has_no_answer_is_refused() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 0.9) == pytest.approx(4.6)
    assert percentile([7.0], 0.99) == 7.0
    assert median([3.0, 1.0, 2.0]) == 2.0
    for p, degrees in ((0.0, 3.0), (1.0, 3.0), (0.9, 0.0)):
        with pytest.raises(ValueError, match="needs"):
            t_quantile(p, degrees)
    with pytest.raises(ValueError, match="fraction"):
        percentile([1.0, 2.0], 90)
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="fractions"):
        percentile_bound([1.0] * 100, 90)


@pytest.mark.parametrize(("phi", "truth"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0), (0.96, 49.0)])
def test_autocorrelation_time_of_known_series(phi: float, truth: float) -> None:
    estimates = [autocorrelation_time(correlated(phi, num=20_000, seed=s)) for s in range(8)]
    assert stdlib_statistics.mean(estimates) == pytest.approx(truth, rel=0.2)


def test_series_whose_worth_or_interval_is_known() -> None:
    # An alternating series counts each sample once, a constant one has no spread, a drift is worth
    # few samples.
    assert autocorrelation_time([1.0, 2.0] * 50) == 1.0
    assert effective_sample_size([1.0, 2.0] * 50) == 100.0
    assert autocorrelation_time([0.1] * 40) == 1.0
    assert batch_means_half_width_frac([0.1] * 40) == pytest.approx(0.0, abs=1e-12)
    assert effective_sample_size([float(i) for i in range(200)]) < 10
    for values in (
        [float(i) for i in range(1, 61)], [], [1.0] * 9, [-1.0 - i % 3 for i in range(200)]
    ):  # fmt: skip
        assert batch_means_half_width_frac(values) is None
    # Alternating steps have time 1, so a batch is 4 steps; ten batch means alternate 2.0 and 2.1:
    # mean 2.05, s = 0.05 sqrt(10/9), standard error 0.05 / 3, t(9) = 2.262157.
    values = [1.0, 3.0, 1.0, 3.0, 1.1, 3.1, 1.1, 3.1] * 5
    assert batch_means_half_width_frac(values) == pytest.approx(2.262157 * 0.05 / 3 / 2.05)
    assert batch_means_half_width_frac(values[1:]) is None  # nine batches are too few
    # Logs 0 and ln 4: mean ln 2, standard error ln 2, t(1) = 12.7062.
    expected = (2.0, 2.0 ** (1 - 12.706204736), 2.0 ** (1 + 12.706204736))
    assert mean_interval_log([1.0, 4.0]) == pytest.approx(expected)
    assert mean_interval_log([3.0]) is None


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_batch_means_interval_covers_the_mean(phi: float) -> None:
    covered = 0
    for seed in range(200):
        series = correlated(phi, num=2000, seed=seed)
        half_width = batch_means_half_width_frac(series)
        assert half_width is not None
        mean = stdlib_statistics.fmean(series)
        covered += abs(mean - 100.0) <= half_width * mean
    assert 0.90 <= covered / 200 <= 0.99


def test_twenty_thousand_samples_take_well_under_a_second() -> None:
    series = correlated(0.95, num=20_000, seed=1)
    started = time.perf_counter()
    batch_means_half_width_frac(series)
    assert time.perf_counter() - started < 0.5  # some 30 ms on a quiet core


def test_percentile_bound_needs_the_mlperf_minimum_and_lies_above_as_often_as_promised() -> None:
    for q, least in ((0.9, 64), (0.95, 130), (0.99, 662)):
        values = [float(i) for i in range(least)]
        assert percentile_bound(values[1:], q) is None
        assert percentile_bound(values, q) == least - 2  # one slower value is discarded
    source = random.Random(5)
    series = ([source.random() for _ in range(200)] for _ in range(1000))
    assert sum((percentile_bound(one, 0.9) or 0.0) >= 0.9 for one in series) / 1000 >= 0.985
