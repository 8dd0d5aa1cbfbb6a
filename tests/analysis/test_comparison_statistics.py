"""Comparisons of logarithms against scipy and hand-worked numbers."""

import math
from typing import Any

import numpy as np
import pytest

from bench.analysis.estimates import estimate, exact, geometric_mean
from bench.analysis.statistics import (
    Differences,
    benjamini_hochberg,
    p_values_beyond,
    paired,
    t_upper_quantiles,
    trials_to_settle,
    welch,
)

A = [0.02, -0.01, 0.03, 0.00, -0.02]
B = [0.10, 0.14, 0.07, 0.12]


def welch_of(a: list[float], b: list[float]) -> Differences:
    return welch(
        num_a=np.array([float(len(a))]),
        mean_a=np.array([np.mean(a)]),
        var_a=np.array([np.var(a, ddof=1)]) if len(a) > 1 else np.array([np.nan]),
        num_b=np.array([float(len(b))]),
        mean_b=np.array([np.mean(b)]),
        var_b=np.array([np.var(b, ddof=1)]) if len(b) > 1 else np.array([np.nan]),
    )


def test_welch_interval_agrees_with_scipy() -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    expected = stats.ttest_ind(B, A, equal_var=False).confidence_interval(0.95)
    found = welch_of(A, B)
    assert found.low[0] == pytest.approx(expected.low, rel=1e-10)
    assert found.high[0] == pytest.approx(expected.high, rel=1e-10)


def test_welch_interval_by_hand() -> None:
    # Means 1 and 4, variances 1 and 1, n = 3: error sqrt(2/3), 4 degrees, t = 2.776445.
    found = welch_of([0.0, 1.0, 2.0], [3.0, 4.0, 5.0])
    assert found.degrees[0] == pytest.approx(4.0)
    assert found.half_width[0] == pytest.approx(2.776445 * math.sqrt(2 / 3), rel=1e-6)


def test_equal_counters_have_a_point_for_an_interval() -> None:
    found = welch_of([5.0] * 3, [6.0] * 3)
    assert (found.low[0], found.high[0]) == (1.0, 1.0)


def test_one_trial_has_no_interval() -> None:
    assert math.isnan(welch_of([1.0], B).low[0])


def test_paired_interval_agrees_with_scipy() -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    expected = stats.ttest_1samp(B, 0.0).confidence_interval(0.95)
    found = paired(B)
    assert found.low[0] == pytest.approx(expected.low, rel=1e-10)
    assert found.high[0] == pytest.approx(expected.high, rel=1e-10)


def test_paired_needs_two_pairs() -> None:
    with pytest.raises(ValueError, match="two pairs"):
        paired([0.1])


def test_quantiles_of_many_degrees_agree_with_scipy() -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    degrees = np.concatenate([np.linspace(1.0, 40.0, 200), [1e3, 1e6]])
    expected = stats.t.ppf(0.975, degrees)
    assert t_upper_quantiles(degrees) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="under 1"):
        t_upper_quantiles(np.array([0.5]))


def test_p_value_is_under_5_percent_just_where_the_interval_leaves_the_margin() -> None:
    found = welch_of(A, B)
    inside, outside = found.low * 1.0001, found.low * 0.9999
    assert p_values_beyond(found, margin=inside)[0] == 1.0
    assert p_values_beyond(found, margin=outside)[0] == pytest.approx(0.05, abs=1e-4)


def test_p_value_agrees_with_scipy() -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    expected = stats.ttest_ind(np.array(B) - 0.03, A, equal_var=False).pvalue
    found = p_values_beyond(welch_of(A, B), margin=np.array([0.03]))
    assert found[0] == pytest.approx(expected, rel=1e-9)


def test_benjamini_hochberg_by_hand() -> None:
    # Limits at q = .05 and m = 5 are .01 .02 .03 .04 .05; .029 is the last one under its limit.
    p_values = np.array([0.2, 0.005, 0.029, 0.025, 0.041])
    assert benjamini_hochberg(p_values).tolist() == [False, True, True, True, False]
    assert benjamini_hochberg(np.array([])).tolist() == []


def test_benjamini_hochberg_agrees_with_scipy() -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    p_values = np.random.default_rng(3).beta(0.4, 2.0, size=200)
    expected = stats.false_discovery_control(p_values) <= 0.05
    assert benjamini_hochberg(p_values).tolist() == expected.tolist()


def test_more_trials_are_asked_for_the_closer_the_ratio_is_to_the_threshold() -> None:
    count = np.array([5.0, 5.0])
    found = Differences(
        estimate=np.array([0.08, 0.045]),
        error=np.array([0.0126, 0.0126]),
        degrees=np.array([8.0, 8.0]),
        half_width=np.array([0.029, 0.029]),
    )
    more = trials_to_settle(found, margin=np.array([0.0296, 0.0296]), num=count)
    # 0.0154 away: t sqrt(2 s^2 / n) = 0.0154 with s = 0.02 gives n of about 14.
    assert more[1] == pytest.approx(9, abs=1)
    assert more[0] < more[1]


def test_a_ratio_at_the_threshold_cannot_be_settled() -> None:
    found = welch_of(A, B)
    more = trials_to_settle(found, margin=np.abs(found.estimate), num=np.array([4.0]))
    assert math.isnan(more[0])


def test_geometric_mean_by_hand() -> None:
    assert geometric_mean([1.0, 2.0, 4.0]) == pytest.approx(2.0)


def test_ratio_of_estimates_is_welch() -> None:
    a, b = estimate([math.exp(x) for x in A]), estimate([math.exp(x) for x in B])
    assert a is not None
    assert b is not None
    interval = b.over(a).interval
    expected = welch_of(A, B)
    assert interval is not None
    assert interval[0] == pytest.approx(math.exp(expected.low[0]), rel=1e-9)
    assert interval[1] == pytest.approx(math.exp(expected.high[0]), rel=1e-9)


def test_a_formula_adds_no_error_and_has_no_interval() -> None:
    measured = estimate([1.0, 2.0, 4.0])
    assert measured is not None
    assert exact(6.0).over(exact(2.0)).value == pytest.approx(3.0)
    assert exact(6.0).over(exact(2.0)).interval is None
    scaled = measured.over(exact(2.0)).interval
    assert scaled is not None
    assert measured.interval is not None
    assert scaled[0] == pytest.approx(measured.interval[0] / 2.0)


def test_a_ratio_with_a_single_trial_has_no_interval() -> None:
    one, several = estimate([2.0]), estimate([1.0, 1.1, 0.9])
    assert one is not None
    assert several is not None
    assert one.over(several).interval is None
    assert one.over(several).num == 1


def test_no_values_give_no_estimate() -> None:
    assert estimate([]) is None
