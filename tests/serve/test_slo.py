"""Limits as typed, and how often the interval of an attainment holds the truth."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import BenchError
from bench.core.queueing import sojourn_times
from bench.serve.slo import Attainment, _wilson, attainment, fewest_to_hold, parse_slo
from tests.analysis.test_queueing import LAWS, in_time_md1


def test_limits_are_read() -> None:
    one = parse_slo(" 2s@p99 ")
    assert (one.label, one.at, one.latency_s, one.ttft_s, one.tpot_s) == (
        "2s@p99", 0.99, 2.0, None, None,
    )  # fmt: skip
    tokens = parse_slo("TTFT=2s@p95, tpot = 200 ms @ P95")
    assert (tokens.at, tokens.latency_s, tokens.ttft_s, tokens.tpot_s) == (0.95, None, 2.0, 0.2)
    assert parse_slo("latency=10min@p99.9").latency_s == 600.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2s", "'2s' has no percentile; write 2s@p99 or ttft=2s@p99,tpot=200ms@p99"),
        ("ttft=2s,tpot=200ms@p99", "'ttft=2s' has no percentile"),
        ("", "has no percentile"),
        ("2s@p99,", "has no percentile"),
        ("p99@2s", "the time comes first; write 2s@p99"),
        ("2s@99", "'99' is not a percentile from p1 to p99.9, such as p95"),
        ("2s@p100", "is not a percentile"),
        ("2@p99", "'2' needs a number with a unit"),
        ("0s@p99", "the time must be over 0"),
        ("itl=2ms@p99", "'itl' is not latency, ttft or tpot"),
        ("2s@p99,latency=3s@p99", "limits latency twice"),
        ("ttft=2s@p99,tpot=200ms@p95", "give them one percentile"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(text: str, says: str) -> None:
    with pytest.raises(BenchError) as refused:
        parse_slo(text)
    assert says in str(refused.value) and "\n" not in str(refused.value)


@given(st.text() | st.from_regex(r"((ttft|tpot|latency)=)?[0-9.e]*(ms|s|min)?(@p[0-9.]*)?,?"))
def test_any_text_is_an_slo_or_one_line(text: str) -> None:
    try:
        found = parse_slo(text)
    except BenchError as error:
        assert "\n" not in str(error)
    else:
        assert 0.01 <= found.at <= 0.999
        limits = [one for one in (found.latency_s, found.ttft_s, found.tpot_s) if one is not None]
        assert limits and min(limits) > 0.0


def test_verdicts_in_numbers() -> None:
    # Of n that all hold, Wilson's low end is n / (n + 1.96^2).
    assert attainment([True] * 400).low == pytest.approx(400 / (400 + 1.95996**2))
    assert [attainment([True] * num).verdict(0.99) for num in (400, 380)] == ["holds", "undecided"]
    assert [fewest_to_hold(at) for at in (0.9, 0.99)] == [35, 381]
    assert attainment([True] * 35).verdict(0.9) == "holds" != attainment([True] * 34).verdict(0.9)
    alternating = attainment(([True] * 9 + [False]) * 10)
    assert (alternating.low, alternating.high) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert [alternating.verdict(at) for at in (0.8, 0.9, 0.95)] == ["holds", "undecided", "breaks"]
    assert attainment([False]) == Attainment(
        frac=0.0, low=0.0, high=pytest.approx(0.7935, abs=1e-4)
    )


def test_late_ones_in_a_row_are_worth_few() -> None:
    apart = attainment(([True] * 99 + [False]) * 100)
    in_a_row = attainment([True] * 5000 + [False] * 100 + [True] * 4900)
    assert apart.frac == in_a_row.frac == 0.99
    assert apart.high - apart.low < 0.004 and in_a_row.high - in_a_row.low > 0.03
    # A queue that grows without end is one long burst, and still no attainment of 99 %.
    assert attainment([True] * 200 + [False] * 400).verdict(0.99) == "breaks"


def in_time_mm1(used: float, limit: float) -> float:
    return 1.0 - math.exp(-(1.0 - used) * limit)


SERIES: list[tuple[str, float, float, Callable[[float, float], float]]] = [
    ("constant", 0.78, 10.0, in_time_md1),
    # Of 4 * 10^6 arrivals.
    ("cv 0.5", 0.72, 10.0, lambda used, limit: 0.98904),
    ("exponential", 0.54, 10.0, in_time_mm1),
    ("constant", 0.89, 20.0, in_time_md1),
    ("constant", 0.57, 5.0, in_time_md1),
]
"""Part of a server that is used, and a limit in services that about 99 % hold."""


@pytest.mark.parametrize("num", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("law", "used", "limit", "in_time"), SERIES)
def test_of_100_intervals_85_hold_the_truth_and_of_binomial_ones_half_at_most(
    law: str, used: float, limit: float, in_time: Callable[[float, float], float], num: int
) -> None:
    truth = in_time(used, limit)
    assert truth == pytest.approx(0.989, abs=0.0015)
    num_ours = num_binomial = num_by_late_ones = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        arrivals = np.cumsum(random.exponential(size=num + 2_000)) / used
        latencies = sojourn_times(arrivals, LAWS[law][0](random, len(arrivals)))[2_000:]
        held = (latencies <= limit).tolist()
        ours = attainment(held, latencies_s=latencies.tolist())
        by_late_ones, binomial = attainment(held), _wilson(ours.frac, num=len(held))
        num_ours += ours.low <= truth <= ours.high
        num_by_late_ones += by_late_ones.low <= truth <= by_late_ones.high
        num_binomial += binomial.low <= truth <= binomial.high
    print(f"{law} {used:g} {limit:g}: {num_ours}, {num_by_late_ones}, binomial {num_binomial}")
    assert num_ours >= 85
    assert num_binomial <= 60, "late requests are not independent"
    if (used, limit) == (0.89, 20.0):
        assert num_by_late_ones < 80, "few late ones do not know how long bursts last"
