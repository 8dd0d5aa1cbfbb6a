"""Comparisons of logarithms against scipy and hand-worked numbers."""

import math
import random
from typing import Any

import pytest

from bench.analysis.comparison.verdicts import (
    benjamini_hochberg,
    judge,
    p_beyond,
    trials_to_settle,
)
from bench.analysis.trials.estimates import (
    LogEstimate,
    estimate,
    exact,
    mean_of_logs,
)
from bench.core.statistics import t_quantile

A = [0.02, -0.01, 0.03, 0.00, -0.02]
B = [0.10, 0.14, 0.07, 0.12]


def ratio_of(a: list[float], b: list[float]) -> LogEstimate:
    return mean_of_logs(b).over(mean_of_logs(a))


def ends(found: LogEstimate) -> tuple[float, float]:
    assert found.half_width is not None
    return found.log - found.half_width, found.log + found.half_width


def test_intervals_and_p_values_agree_with_scipy() -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    welch = stats.ttest_ind(B, A, equal_var=False).confidence_interval(0.95)
    assert ends(ratio_of(A, B)) == pytest.approx((welch.low, welch.high), rel=1e-10)
    paired = stats.ttest_1samp(B, 0.0).confidence_interval(0.95)
    assert ends(mean_of_logs(B)) == pytest.approx((paired.low, paired.high), rel=1e-10)
    p_value = stats.ttest_ind([b - 0.03 for b in B], A, equal_var=False).pvalue
    assert p_beyond(ratio_of(A, B), margin=0.03) == pytest.approx(p_value, rel=1e-9)
    source = random.Random(3)
    p_values = [source.betavariate(0.4, 2.0) for _ in range(200)]
    expected = stats.false_discovery_control(p_values) <= 0.05
    assert benjamini_hochberg(p_values) == expected.tolist()


def test_interval_of_a_ratio_by_hand() -> None:
    # Means 1 and 4, variances 1 and 1, n = 3: error sqrt(2/3), 4 degrees, t = 2.776445.
    found = ratio_of([0.0, 1.0, 2.0], [3.0, 4.0, 5.0])
    assert found.degrees == pytest.approx(4.0)
    assert found.half_width == pytest.approx(2.776445 * math.sqrt(2 / 3), rel=1e-6)
    # Equal counters have a point for an interval.
    assert ends(ratio_of([5.0] * 3, [6.0] * 3)) == (1.0, 1.0)


def test_p_value_is_under_5_percent_just_where_the_interval_leaves_the_margin() -> None:
    found = ratio_of(A, B)
    low, _ = ends(found)
    assert p_beyond(found, margin=low * 1.0001) == 1.0
    assert p_beyond(found, margin=low * 0.9999) == pytest.approx(0.05, abs=1e-4)


def test_benjamini_hochberg_by_hand() -> None:
    # Limits at q = .05 and m = 5 are .01 .02 .03 .04 .05; .029 is the last one under its limit.
    p_values = [0.2, 0.005, 0.029, 0.025, 0.041]
    assert benjamini_hochberg(p_values) == [False, True, True, True, False]
    assert benjamini_hochberg([]) == []


def test_more_trials_are_asked_for_the_closer_the_ratio_is_to_the_threshold() -> None:
    # 0.0154 away: t sqrt(2 s^2 / n) = 0.0154 with s = 0.02 gives n of about 14, 9 more than 5.
    far, near = (LogEstimate(log=log, parts=((0.0126**2, 8.0),), num=5) for log in (0.08, 0.045))
    more = trials_to_settle(near, margin=0.0296)
    assert more == pytest.approx(9, abs=1)
    assert (trials_to_settle(far, margin=0.0296) or 0) < (more or 0)
    assert trials_to_settle(near, margin=near.log) is None


def test_a_formula_adds_no_error_and_has_no_interval() -> None:
    measured = estimate([1.0, 2.0, 4.0])
    assert measured is not None and measured.interval is not None
    assert exact(6.0).over(exact(2.0)).value == pytest.approx(3.0)
    assert exact(6.0).over(exact(2.0)).interval is None
    scaled = measured.over(exact(2.0)).interval
    assert scaled is not None
    assert scaled[0] == pytest.approx(measured.interval[0] / 2.0)


def test_a_single_trial_has_no_interval_nor_has_its_ratio() -> None:
    one, several = estimate([2.0]), estimate([1.0, 1.1, 0.9])
    assert one is not None and several is not None
    assert one.interval is None and one.over(several).interval is None
    assert one.over(several).num == 1
    assert estimate([]) is None


def test_an_interval_across_the_threshold_is_open_and_not_demoted() -> None:
    """1.01 to 1.05 against 3 %: slower, but not by the threshold, whatever the other rows are."""
    middle, half_width = math.log(1.03), math.log(1.02)
    error = half_width / t_quantile(0.975, 8.0)
    ratio = LogEstimate(log=middle, parts=((error**2, 8.0),), num=5)
    (judged,) = judge([ratio], threshold_fracs=[0.03])
    assert (judged.verdict, judged.is_demoted) == ("INCONCLUSIVE", False)
    (judged,) = judge([ratio], threshold_fracs=[0.005])
    assert judged.verdict == "REGRESSION"
