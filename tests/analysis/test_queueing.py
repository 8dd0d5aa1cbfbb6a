"""Queues against theory: means by formula, quantiles by exact laws, capacity with its interval."""

import math
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.core.log_estimate import LogEstimate
from bench.core.queueing import _one_by_one, mean_waits, sojourn_times
from bench.core.traffic import (
    FEWEST,
    RequestKind,
    Traffic,
    capacity,
    fewest_servers,
    sojourn_quantiles,
)

Floats = NDArray[np.float64]
Law = Callable[[np.random.Generator, int], Floats]


def log_normal(cv: float) -> Law:
    sigma = math.sqrt(math.log1p(cv**2))
    return lambda random, num: random.lognormal(-0.5 * sigma**2, sigma, num)


LAWS: dict[str, tuple[Law, float]] = {
    "constant": (lambda random, num: np.ones(num), 0.0),
    "cv 0.5": (log_normal(0.5), 0.25),
    "exponential": (lambda random, num: random.exponential(size=num), 1.0),
    "cv 2": (log_normal(2.0), 4.0),
}
A_TIME = st.integers(0, 40).map(float)
REQUESTS = st.lists(st.tuples(A_TIME, st.integers(1, 40).map(float), st.booleans()), min_size=1)


def columns(requests: Sequence[tuple[float, float, bool]]) -> tuple[Floats, Floats, Floats]:
    gaps, services, marks = map(np.array, zip(*requests, strict=True))
    return np.cumsum(gaps), services, marks


@given(REQUESTS)
def test_one_server_by_lindley_is_one_server_by_events(
    requests: list[tuple[float, float, bool]],
) -> None:
    arrivals, services, is_urgent = columns(requests)
    found = sojourn_times(arrivals, services)
    assert found == pytest.approx(_one_by_one(arrivals, services, 1, None))
    by_class = sojourn_times(arrivals, services, is_urgent=is_urgent)
    assert by_class == pytest.approx(_one_by_one(arrivals, services, 1, is_urgent))
    assert (by_class >= services).all() and (found >= services).all()
    # Work is done in the same busy times whatever the order.
    assert max(arrivals + by_class) == pytest.approx(max(arrivals + found))


@given(REQUESTS, st.integers(1, 4), st.floats(0.2, 1.0))
def test_more_servers_are_never_slower_and_a_higher_rate_never_faster(
    requests: list[tuple[float, float, bool]], servers: int, closer: float
) -> None:
    arrivals, services, _ = columns(requests)
    found = sojourn_times(arrivals, services, servers=servers)
    assert (found >= services - 1e-9).all()
    assert (sojourn_times(arrivals, services, servers=servers + 1) <= found + 1e-9).all()
    assert (sojourn_times(closer * arrivals, services, servers=servers) >= found - 1e-9).all()


def test_urgent_ones_are_never_later_than_in_order_of_arrival_and_nothing_begun_is_broken_off() -> (
    None
):
    # One of 10 is begun at 0; a routine one of 5 came at 1, an urgent one of 1 at 2, another at 10:
    # at 10 the first urgent one begins, at 11 the second, and only then the routine one.
    arrivals, services = np.array([0.0, 1.0, 2.0, 10.0]), np.array([10.0, 5.0, 1.0, 1.0])
    marks = np.array([False, False, True, True])
    assert sojourn_times(arrivals, services).tolist() == [10.0, 14.0, 14.0, 7.0]
    found = sojourn_times(arrivals, services, is_urgent=marks)
    assert found.tolist() == [10.0, 16.0, 9.0, 2.0]


def poisson(num: int = 400_000, seed: int = 1) -> tuple[np.random.Generator, Floats]:
    random = np.random.default_rng(seed)
    return random, np.cumsum(random.exponential(size=num))


@pytest.mark.parametrize("law", ["constant", "cv 0.5", "exponential"])
def test_waits_are_those_of_pollaczek_and_khinchine(law: str) -> None:
    draw, cv2 = LAWS[law]
    for used, seeds in ((0.5, 1), (0.7, 2), (0.9, 16)):
        means = []
        for seed in range(seeds):
            random, arrivals = poisson(seed=seed)
            services = draw(random, len(arrivals))
            means.append((sojourn_times(arrivals / used, services) - services).mean())
        (expected,) = mean_waits([used], mean=1.0, cv2=cv2)
        assert np.mean(means) == pytest.approx(expected, rel=0.03), used


def test_quantiles_classes_and_two_servers_are_those_of_theory() -> None:
    """M/M/1 stays exp(mu - lambda); Cobham; M/M/2 waits rho^2 / (1 - rho^2) services (Erlang C)."""
    random, arrivals = poisson()
    services = random.exponential(size=len(arrivals))
    found = sojourn_times(arrivals / 0.6, services)
    for at in (0.5, 0.95, 0.99):
        exact = -math.log(1.0 - at) / (1.0 - 0.6)
        assert np.quantile(found, at) == pytest.approx(exact, rel=0.03)
    is_urgent = random.random(len(arrivals)) < 0.2
    waits = sojourn_times(arrivals / 0.8, services, is_urgent=is_urgent) - services
    expected = mean_waits([0.16, 0.64], mean=1.0, cv2=1.0)
    assert waits[is_urgent].mean() == pytest.approx(expected[0], rel=0.03)
    assert waits[~is_urgent].mean() == pytest.approx(expected[1], rel=0.05)
    together = 0.2 * expected[0] + 0.8 * expected[1]
    assert [together] == pytest.approx(mean_waits([0.8], mean=1.0, cv2=1.0)), "as in one order"
    waits = sojourn_times(arrivals / 1.4, services, servers=2) - services
    assert waits.mean() == pytest.approx(0.49 / (1.0 - 0.49), rel=0.03)


def in_time_md1(used: float, limit: float) -> float:
    """P(sojourn <= limit services) of M/D/1: Erlang 1909, as in Kleinrock I, problem 5.10."""
    waits = limit - 1.0
    terms = (
        math.exp(-used * (k - waits)) * (used * (k - waits)) ** k / math.factorial(k)
        for k in range(math.floor(waits) + 1)
    )
    return (1.0 - used) * math.fsum(terms)


def usable_md1(limit: float, at: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if in_time_md1(middle, limit) >= at else (low, middle)
    return low


def kind(law: str, num: int, *, seed: int, is_measured: bool = True) -> RequestKind:
    services = LAWS[law][0](np.random.default_rng(seed), num)
    return RequestKind(services=(tuple(services.tolist()),), is_measured=is_measured)


def errors(law: str, *, limit: float, at: float, truth: float, seeds: int) -> tuple[Floats, int]:
    """Error of each found rate, and how many intervals hold the truth."""
    found, num_covered = [], 0
    for seed in range(seeds):
        traffic = Traffic(kinds=(kind(law, 700, seed=1000 + seed),), at=at, limit=limit)
        one = capacity(traffic, seed=100 * seed)
        estimate = LogEstimate(log=math.log(one.rate), parts=one.parts)
        low, high = estimate.interval or (0.0, 0.0)
        num_covered += low <= truth <= high
        found.append(one.rate / truth - 1.0)
    return np.array(found), num_covered


CV_HALF_P99_10 = 0.7136
"""Of 10^7 arrivals of a log-normal service: found once, and found again by the slow test."""


@pytest.mark.parametrize("law", ["constant", "cv 0.5"])
def test_capacity_from_700_services_is_within_5_percent_and_its_interval_holds_the_truth(
    law: str,
) -> None:
    truth = usable_md1(10.0, 0.99) if law == "constant" else CV_HALF_P99_10
    assert truth == pytest.approx(0.774 if law == "constant" else 0.714, abs=0.002)
    found, num_covered = errors(law, limit=10.0, at=0.99, truth=truth, seeds=8)
    assert abs(median(found)) < 0.05 and abs(found).max() < 0.10
    assert num_covered >= 6


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("law", ["constant", "cv 0.5"])
@pytest.mark.parametrize("limit", [5, 10, 20])
@pytest.mark.parametrize("at", [0.95, 0.99])
def test_of_100_intervals_90_hold_the_truth(law: str, limit: float, at: float) -> None:
    truth = usable_md1(limit, at)
    if law != "constant":
        random, arrivals = poisson(10_000_000, seed=7)
        services = LAWS[law][0](random, len(arrivals))
        low, high = 0.0, 1.0
        for _ in range(12):
            truth = 0.5 * (low + high)
            late = np.mean(sojourn_times(arrivals / truth, services) > limit)
            low, high = (truth, high) if late <= 1.0 - at else (low, truth)
        if (limit, at) == (10, 0.99):
            assert truth == pytest.approx(CV_HALF_P99_10, rel=0.005)
    found, num_covered = errors(law, limit=limit, at=at, truth=truth, seeds=100)
    print(
        f"\n{law}, p{100 * at:g} within {limit}: truth {truth:.4f}, median error "
        f"{median(found):+.2%}, 5-95 % {np.quantile(found, (0.05, 0.95))}, {num_covered} of 100"
    )
    assert abs(median(found)) < 0.05
    # At p99 within 5 the few services that come near the limit by themselves decide: of 700, seven.
    # Who knew that they are log-normal, and took its two figures from them, would be within 8 %
    # in 84 of the same 100: no 700 services carry 90.
    is_of_few = (law, limit, at) == ("cv 0.5", 5, 0.99)
    assert np.mean(abs(found) < 0.08) >= (0.7 if is_of_few else 0.9)
    assert num_covered >= 90


USABLE = {
    "constant": ((0.49, 0.70, 0.85, 0.93), (0.32, 0.57, 0.78, 0.89)),
    "cv 0.5": ((0.35, 0.62, 0.81, 0.91), (0.09, 0.44, 0.72, 0.86)),
    "exponential": ((0.0, 0.40, 0.70, 0.85), (0.0, 0.08, 0.54, 0.77)),
    "cv 2": ((0.0, 0.12, 0.38, 0.62), (0.0, 0.0, 0.05, 0.30)),
}
"""Part of a server that may be used by limit (3, 5, 10, 20 services), at p95 and at p99; replays of
10^6 arrivals, of which the exponential row agrees with 1 - ln(1 / (1 - at)) / limit."""


@pytest.mark.parametrize(
    "law", ["constant", "cv 0.5", *(pytest.param(law, marks=pytest.mark.slow)
                                    for law in ("exponential", "cv 2"))]
)  # fmt: skip
def test_the_part_of_a_server_that_may_be_used(law: str) -> None:
    num = 1 if law == "constant" else 100_000
    one = kind(law, num, seed=3, is_measured=False)
    for at, expected in zip((0.95, 0.99), USABLE[law], strict=True):
        for limit, usable in zip((3.0, 5.0, 10.0, 20.0), expected, strict=True):
            traffic = Traffic(kinds=(one,), at=at, limit=limit * one.mean)
            found = capacity(traffic).utilisation
            assert found == pytest.approx(usable, abs=0.03 if law == "cv 2" else 0.015), (at, limit)


def test_few_services_and_uneven_ones_give_no_interval_and_slow_ones_in_a_row_wait_longer() -> None:
    def found(services: RequestKind) -> tuple[float, bool]:
        one = capacity(Traffic(kinds=(services,), limit=20.0))
        return one.rate, bool(one.parts)

    assert found(kind("cv 0.5", FEWEST - 1, seed=1))[1] is False
    assert found(kind("cv 0.5", FEWEST + 50, seed=1))[1] is True
    assert found(kind("exponential", 700, seed=1))[1] is False
    assert found(kind("cv 0.5", 700, seed=1, is_measured=False))[1] is False
    # What is always the same leaves nothing open but when it comes.
    constant = capacity(Traffic(kinds=(RequestKind(services=((1.0,) * 300,)),), limit=10.0))
    (by_arrivals, _), (by_services, _) = constant.parts
    assert by_arrivals > by_services == 0.0
    # The same 2,000 services, slow ones together: as many are worth fewer, and queues are longer.
    random = np.random.default_rng(1)
    waves = np.repeat(random.choice((0.5, 1.5), size=80), 25).tolist()
    in_waves = RequestKind(services=(tuple(waves),))
    shuffled = RequestKind(services=(tuple(random.permutation(waves).tolist()),))
    assert in_waves.num_independent < 0.2 * shuffled.num_independent
    assert found(in_waves)[0] < 0.9 * found(shuffled)[0]


def test_devices_classes_and_kinds_in_numbers() -> None:
    one = RequestKind(services=((1.0,),))
    limit = Traffic(kinds=(one,), at=0.99, limit=10.0)
    # One carries 0.774 of itself; what is too slow alone no number makes faster.
    assert [fewest_servers(limit, rate=rate) for rate in (0.7, 0.9, 1.7, 1.8)] == [1, 2, 2, 3]
    assert fewest_servers(limit, rate=0.27, slower=2.0) == 1
    assert fewest_servers(limit, rate=0.1, slower=11.0) is None
    assert fewest_servers(limit, rate=1e9) is None
    assert fewest_servers(Traffic(kinds=(one,)), rate=40.5) == 41
    assert fewest_servers(Traffic(kinds=(one,)), rate=10.7, slower=2.0) == 22
    two = capacity(Traffic(kinds=(one,), at=0.99, limit=10.0, servers=2))
    assert 2 * 0.774 < two.rate < 2.0, "one queue for two devices is better than two queues"
    assert sojourn_quantiles(limit, rate=1.0) is None
    (slow,) = sojourn_quantiles(limit, rate=0.45, slower=2.0) or []
    (fast,) = sojourn_quantiles(limit, rate=0.9) or []
    assert (slow.half, slow.most) == pytest.approx((2.0 * fast.half, 2.0 * fast.most))
    # Urgent ones wait less than others, which wait longer than without them.
    urgent = Traffic(kinds=(one,), at=0.95, limit=20.0, urgent_share=0.1, urgent_limit=3.0)
    (mixed,) = sojourn_quantiles(urgent, rate=0.9) or []
    (plain,) = sojourn_quantiles(Traffic(kinds=(one,), at=0.95), rate=0.9) or []
    assert mixed.urgent_most is not None and plain.urgent_most is None
    assert mixed.urgent_most < 0.4 * plain.most < 0.4 * mixed.most
    assert capacity(urgent).rate > 1.5 * capacity(Traffic(kinds=(one,), limit=3.0)).rate
    # A tenth of the work in ten times as long items holds up the short ones.
    long = RequestKind(services=((10.0,),), weight=0.01)
    both = Traffic(kinds=(RequestKind(services=((1.0,),), weight=0.99), long), limit=12.0)
    assert both.mean == pytest.approx(1.09) and both.cv2 == pytest.approx(1.99 / 1.09**2 - 1.0)
    assert capacity(both).utilisation < 0.8 * usable_md1(12.0, 0.95)
    short, slower = sojourn_quantiles(both, rate=0.5) or []
    assert slower.half > 10.0 > short.most


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.9), st.floats(0.0, 3.0))
def test_waits_rise_with_the_rate_and_with_the_spread(used: float, cv2: float) -> None:
    found = mean_waits([0.5 * used], mean=2.0, cv2=cv2)
    assert found < mean_waits([0.5 * used + 0.02], mean=2.0, cv2=cv2)
    assert found < mean_waits([0.5 * used], mean=2.0, cv2=cv2 + 0.1)
