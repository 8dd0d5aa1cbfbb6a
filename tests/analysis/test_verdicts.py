"""Statistics of one series, and from ratios to verdicts: against scipy, by hand, and simulated."""

import math
import random
import time
from itertools import chain
from statistics import fmean
from typing import Any

import pytest

from bench.analysis.comparison.verdicts import (
    Judged,
    benjamini_hochberg,
    block_order,
    compare_arms,
    judge,
    p_beyond,
    trials_to_settle,
)
from bench.core.log_estimate import LogEstimate, estimate, exact, mean_of_logs
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

A = [0.02, -0.01, 0.03, 0.00, -0.02]
B = [0.10, 0.14, 0.07, 0.12]
NUM_DRAWS = 500


def ratio_of(a: list[float], b: list[float]) -> LogEstimate:
    return mean_of_logs(b).over(mean_of_logs(a))


def test_intervals_and_p_values_agree_with_scipy() -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    welch = stats.ttest_ind(B, A, equal_var=False).confidence_interval(0.95)
    assert ratio_of(A, B).log_ends == pytest.approx((welch.low, welch.high), rel=1e-10)
    paired = stats.ttest_1samp(B, 0.0).confidence_interval(0.95)
    assert mean_of_logs(B).log_ends == pytest.approx((paired.low, paired.high), rel=1e-10)
    p_value = stats.ttest_ind([b - 0.03 for b in B], A, equal_var=False).pvalue
    assert p_beyond(ratio_of(A, B), margin=0.03) == pytest.approx(p_value, rel=1e-9)
    # Under 5 % just where the interval leaves the margin.
    assert p_beyond(ratio_of(A, B), margin=welch.low * 1.0001) == 1.0
    assert p_beyond(ratio_of(A, B), margin=welch.low * 0.9999) == pytest.approx(0.05, abs=1e-4)
    source = random.Random(3)
    p_values = [source.betavariate(0.4, 2.0) for _ in range(200)]
    expected = stats.false_discovery_control(p_values) <= 0.05
    assert benjamini_hochberg(p_values) == expected.tolist()


def test_ratios_by_hand_and_what_has_no_interval() -> None:
    # Means 1 and 4, variances 1 and 1, n = 3: error sqrt(2/3), 4 degrees, t = 2.776445.
    found = ratio_of([0.0, 1.0, 2.0], [3.0, 4.0, 5.0])
    assert found.degrees == pytest.approx(4.0)
    assert found.half_width == pytest.approx(2.776445 * math.sqrt(2 / 3), rel=1e-6)
    # Equal counters have a point for an interval.
    assert ratio_of([5.0] * 3, [6.0] * 3).log_ends == (1.0, 1.0)
    # Limits at q = .05 and m = 5 are .01 .02 .03 .04 .05; .029 is the last one under its limit.
    kept = benjamini_hochberg([0.2, 0.005, 0.029, 0.025, 0.041])
    assert kept == [False, True, True, True, False]
    # 0.0154 away: t sqrt(2 s^2 / n) = 0.0154 with s = 0.02 gives n of about 14, 9 more than 5.
    far, near = (LogEstimate(log=log, parts=((0.0126**2, 8.0),), num=5) for log in (0.08, 0.045))
    more = trials_to_settle(near, margin=0.0296)
    assert more == pytest.approx(9, abs=1)
    assert (trials_to_settle(far, margin=0.0296) or 0) < (more or 0)
    assert trials_to_settle(near, margin=near.log) is None
    one, several = estimate([2.0]), estimate([1.0, 2.0, 4.0])
    assert one is not None and several is not None and several.interval is not None
    assert exact(6.0).over(exact(2.0)).value == pytest.approx(3.0)
    assert exact(6.0).over(exact(2.0)).interval is None
    assert (several.over(exact(2.0)).interval or ())[0] == pytest.approx(several.interval[0] / 2)
    assert one.interval is None and one.over(several).interval is None
    assert one.over(several).num == 1
    assert estimate([]) is None
    # 1.01 to 1.05 against 3 %: slower, but not by the threshold, whatever the other rows are.
    error = math.log(1.02) / t_quantile(0.975, 8.0)
    ratio = LogEstimate(log=math.log(1.03), parts=((error**2, 8.0),), num=5)
    (judged,) = judge([ratio], threshold_fracs=[0.03])
    assert (judged.verdict, judged.is_demoted) == ("INCONCLUSIVE", False)
    (judged,) = judge([ratio], threshold_fracs=[0.005])
    assert judged.verdict == "REGRESSION"


def draw(ratio: float, *, num_trials: int = 5, seed: int = 1) -> list[LogEstimate]:
    """Simulated ratios, with 2 % spread between processes."""
    source = random.Random(seed)

    def side(shift: float) -> LogEstimate:
        return mean_of_logs([source.gauss(shift, 0.02) for _ in range(num_trials)])

    return [side(math.log(ratio)).over(side(0.0)) for _ in range(NUM_DRAWS)]


def test_large_changes_are_seen_small_ones_raise_no_alarm_and_intervals_cover_the_truth() -> None:
    def judged(ratio: float) -> list[Judged]:
        return [judge([one], threshold_fracs=[0.03])[0] for one in draw(ratio)]

    for ratio, words in ((1.10, "REGRESSION"), (1 / 1.10, "IMPROVED")):
        assert sum(one.verdict == words for one in judged(ratio)) >= 0.95 * NUM_DRAWS
    assert "REGRESSION" not in {one.verdict for one in judged(1.01)}
    alarms = [one for one in judged(1.0) if one.verdict in ("REGRESSION", "IMPROVED")]
    assert len(alarms) <= 0.005 * NUM_DRAWS
    # A true +5 % is mostly open after 5 trials; with those asked for it is mostly decided.
    more = median(one.more_trials for one in judged(1.05) if one.more_trials is not None)
    assert 2 <= more <= 40
    again = draw(1.05, num_trials=5 + round(more), seed=2)
    assert sum(one.log_ends[0] > math.log1p(0.03) for one in again) / NUM_DRAWS >= 0.5
    for num_trials in (3, 5, 10):
        draws = (draw(1.07, num_trials=num_trials, seed=seed) for seed in range(100, 104))
        found = list(chain.from_iterable(draws))
        covered = [one.log_ends[0] <= math.log(1.07) <= one.log_ends[1] for one in found]
        assert 0.93 <= sum(covered) / len(covered) <= 0.97, num_trials


def arm_trials(
    num_blocks: int, *, ratio: float, noise: float = 0.01, drift: float = 0.0, seed: int = 1
) -> list[tuple[str, int, float | None]]:
    source = random.Random(seed)
    return [
        (arm, place // 4, math.exp(source.gauss(drift * place, noise)) * ratio ** (arm == "B"))
        for place, arm in enumerate(block_order(num_blocks))
    ]


def test_block_differences_by_hand_with_a_lost_trial_and_under_steady_drift() -> None:
    assert "".join(block_order(2)) == "ABBABAAB"
    # Three blocks with B/A of e^.1, e^.2, e^.3: mean .2, error .1/sqrt(3), t(2) = 4.302653.
    found = [
        (arm, block, math.exp(0.1 * (block + 1)) if arm == "B" else 1.0)
        for block in range(3)
        for arm in "ABBA"
    ]
    result = compare_arms(found, threshold_frac=0.03)
    assert result.ratio == pytest.approx(math.exp(0.2))
    assert result.low == pytest.approx(math.exp(0.2 - 4.302653 * 0.1 / math.sqrt(3)), rel=1e-6)
    assert (result.verdict, result.reason) == ("INCONCLUSIVE", "")
    lost = [*found, *((arm, 3, None if place == 1 else 1.0) for place, arm in enumerate("ABBA"))]
    result = compare_arms(lost, threshold_frac=0.03)
    assert (result.num_blocks, result.num_left_out) == (3, 1)
    assert result.reason == "1 block left out for a lost trial"
    result = compare_arms(lost[4:], threshold_frac=0.03)
    assert (result.verdict, result.low, result.more_blocks) == ("NOT COMPARED", None, 1)
    assert result.ratio is not None and result.reason == "2 whole blocks, needs 3"
    # Every trial is 5 % slower than the one before it; the arms are the same.
    drifting = arm_trials(6, ratio=1.0, drift=0.05, noise=0.002)
    result = compare_arms(drifting, threshold_frac=0.03)
    assert (result.verdict, result.ratio) == ("SAME", pytest.approx(1.0, abs=0.005))
    covered = 0
    for seed in range(800):
        result = compare_arms(arm_trials(4, ratio=1.1, seed=seed), threshold_frac=0.03)
        covered += (result.low or 9.0) <= 1.1 <= (result.high or 0.0)
    assert 0.93 <= covered / 800 <= 0.975


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


def test_percentiles_interpolate_and_bounds_need_the_mlperf_minimum_and_hold_as_promised() -> None:
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
    for q, least in ((0.9, 64), (0.95, 130), (0.99, 662)):
        values = [float(i) for i in range(least)]
        assert percentile_bound(values[1:], q) is None
        assert percentile_bound(values, q) == least - 2  # one slower value is discarded
    source = random.Random(5)
    series = ([source.random() for _ in range(200)] for _ in range(1000))
    assert sum((percentile_bound(one, 0.9) or 0.0) >= 0.9 for one in series) / 1000 >= 0.985


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


def test_autocorrelation_time_and_interval_of_known_series_in_well_under_a_second() -> None:
    series = correlated(0.95, num=20_000, seed=1)
    started = time.perf_counter()
    batch_means_half_width_frac(series)
    assert time.perf_counter() - started < 0.5  # some 30 ms on a quiet core
    for phi, truth in ((0.0, 1.0), (0.5, 3.0), (0.9, 19.0), (0.96, 49.0)):
        estimates = [autocorrelation_time(correlated(phi, num=20_000, seed=s)) for s in range(4)]
        assert fmean(estimates) == pytest.approx(truth, rel=0.2), phi
    for phi in (0.0, 0.6, 0.9):
        covered = 0
        for series in (correlated(phi, num=2000, seed=seed) for seed in range(120)):
            half_width = batch_means_half_width_frac(series)
            assert half_width is not None
            covered += abs(fmean(series) - 100.0) <= half_width * fmean(series)
        assert 0.90 <= covered / 120 <= 0.99, phi
