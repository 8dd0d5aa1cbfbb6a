"""Batches and queues in simulated time, against theory and against events on a heap."""

import heapq
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.batch_traffic import (
    BatchTimes,
    BatchTraffic,
    batch_capacity,
    batched_sojourn_times,
)
from bench.core.log_estimate import LogEstimate
from bench.core.queueing import mean_waits, sojourn_times
from bench.core.statistics import percentile
from bench.serve import fake_server
from bench.serve.arrival_files import Arrival
from bench.serve.arrivals import parse_arrivals
from bench.serve.batcher import BatchRule
from bench.serve.fake_server import Law, batched, constant, serve

SERVICE_S = 0.02


def poisson(rate_per_s: float, *, num: int, seed: int = 1) -> list[Arrival]:
    drawn = parse_arrivals(f"poisson:{rate_per_s:f}/s")
    found = drawn.draw(seconds=1.2 * num / rate_per_s + 10.0 / rate_per_s, seed=seed)
    return found[:num]


def test_one_at_a_time_waits_are_those_of_one_server() -> None:
    arrivals = poisson(0.7 / SERVICE_S, num=50_000)
    served = serve(arrivals, law=constant(SERVICE_S))
    latencies = [one.latency_s for one in served]
    times = np.array([one.at_s for one in arrivals])
    exact = sojourn_times(times, np.full(len(times), SERVICE_S))
    assert latencies == pytest.approx(exact.tolist(), abs=1e-9)
    (expected,) = mean_waits([0.7 / SERVICE_S], mean=SERVICE_S, cv2=0.0)
    waits = [one.started_s - one.scheduled_s for one in served]
    assert fmean(waits) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("max_batch", [1, 4, 32])
def test_a_server_with_too_much_to_do_serves_full_batches(max_batch: int) -> None:
    law = batched(0.03, 0.01)
    most = max_batch / law(max_batch)
    served = serve(
        poisson(3.0 * most, num=6_400), law=law, rule=BatchRule(max_batch=max_batch, max_wait_s=0.1)
    )
    assert len(served) / served[-1].ended_s == pytest.approx(most, rel=0.01)


@pytest.mark.parametrize(("max_batch", "waits_s"), [(1, 0.0), (8, 0.25)])
def test_whoever_comes_alone_waits_for_others_and_is_served(max_batch: int, waits_s: float) -> None:
    rule = BatchRule(max_batch=max_batch, max_wait_s=0.25)
    served = serve(
        [Arrival(at_s=100.0 * place) for place in range(50)], law=batched(0.03, 0.01), rule=rule
    )
    assert [one.latency_s for one in served] == pytest.approx([waits_s + 0.04] * 50)


def ends_by_events(times: list[float], *, law: Law, rule: BatchRule) -> list[float]:
    """When each request is done; events on a heap, requests of one shape."""
    events = [(time, 0, place) for place, time in enumerate(times)]
    heapq.heapify(events)
    queue: list[int] = []
    ends = [math.nan] * len(times)
    busy_until = 0.0
    while events:
        now, is_timer, place = heapq.heappop(events)
        if not is_timer:
            queue.append(place)
            heapq.heappush(events, (now + rule.max_wait_s, 1, place))
        if events and events[0][0] == now and not events[0][1]:
            continue  # others come at the same moment
        if now < busy_until or not queue:
            continue
        if len(queue) >= rule.max_batch or now >= times[queue[0]] + rule.max_wait_s:
            batch, queue = queue[: rule.max_batch], queue[rule.max_batch :]
            busy_until = now + law(len(batch))
            for one in batch:
                ends[one] = busy_until
            heapq.heappush(events, (busy_until, 1, -1))
    return ends


@pytest.mark.parametrize("used", [0.3, 0.6, 0.9])
def test_batches_are_those_of_events_on_a_heap(used: float) -> None:
    law, rule = batched(0.03, 0.01), BatchRule(max_batch=8, max_wait_s=0.05)
    arrivals = poisson(used * 8 / law(8), num=20_000)
    served = serve(arrivals, law=law, rule=rule)
    ends = ends_by_events([one.at_s for one in arrivals], law=law, rule=rule)
    assert [one.ended_s for one in served] == pytest.approx(ends, abs=1e-9)
    assert 1 < fmean(one.batch for one in served) < 8


REQUESTS = st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abc")), min_size=1, max_size=40)


@given(REQUESTS, st.integers(1, 4), st.integers(0, 10))
def test_a_batch_holds_one_shape_and_nobody_is_passed_by_for_long(
    requests: list[tuple[int, str]], max_batch: int, max_wait: int
) -> None:
    requests = sorted(requests)
    shapes = [shape for _, shape in requests]
    law, rule = batched(2.0, 1.0), BatchRule(max_batch=max_batch, max_wait_s=float(max_wait))
    served = serve(
        [Arrival(at_s=float(at_s)) for at_s, _ in requests], law=law, rule=rule, shapes=shapes
    )
    batches: dict[float, list[int]] = {}
    for place, one in enumerate(served):
        assert one.scheduled_s <= one.started_s < one.ended_s
        batches.setdefault(one.started_s, []).append(place)
    for started_s, places in batches.items():
        assert len({shapes[place] for place in places}) == 1
        assert len(places) <= max_batch and {served[place].batch for place in places} == {
            len(places)
        }
        first = served[places[0]]
        is_full = len(places) == max_batch
        assert is_full or started_s >= first.scheduled_s + max_wait
        # Whoever has waited long enough is served before all that came later.
        for other in served[: places[0]]:
            due = other.scheduled_s + max_wait <= started_s
            assert not (due and other.started_s > started_s)
    for (_, before), (after_s, _) in pairwise(sorted(batches.items())):
        assert served[before[0]].ended_s <= after_s
    for shape in Counter(shapes):
        begun = [one.started_s for one, its in zip(served, shapes, strict=True) if its == shape]
        assert begun == sorted(begun), "in order within a shape"


@given(REQUESTS, st.integers(1, 4), st.integers(0, 10))
def test_the_replay_of_a_capacity_serves_the_same_batches(
    requests: list[tuple[int, str]], max_batch: int, max_wait: int
) -> None:
    # No two shapes at one moment: which of two full batches then goes first is free.
    apart = {"a": 0.0, "b": 0.25, "c": 0.5}
    coming = sorted((at_s + apart[shape], shape) for at_s, shape in requests)
    law, rule = batched(2.0, 1.0), BatchRule(max_batch=max_batch, max_wait_s=float(max_wait))
    served = serve(
        [Arrival(at_s=at_s) for at_s, _ in coming],
        law=law, rule=rule, shapes=[shape for _, shape in coming],
    )  # fmt: skip
    arrivals = [[at_s for at_s, shape in coming if shape == one] for one in apart]
    found = batched_sojourn_times(
        arrivals, take=lambda _, size: law(size), max_batch=max_batch, max_wait=max_wait
    )
    for shape, latencies in zip(apart, found, strict=True):
        own = [one.latency_s for one, (_, its) in zip(served, coming, strict=True) if its == shape]
        assert latencies == pytest.approx(own)


@pytest.mark.parametrize("max_wait_s", [0.0, 0.05])
def test_the_rate_of_batches_is_the_largest_at_which_they_hold(max_wait_s: float) -> None:
    """Batches of 30 ms and 10 ms a request, 5 % uneven; within 0.25 s at p95."""
    source, sizes = np.random.default_rng(1), tuple(range(1, 9))
    times = [
        tuple((0.03 + 0.01 * size) * source.normal(1.0, 0.05) for size in sizes) for _ in range(90)
    ]
    kinds = (BatchTimes(sizes=sizes, rounds=tuple(times)),)
    found = batch_capacity(BatchTraffic(kinds=kinds, max_wait=max_wait_s, at=0.95, limit=0.25))
    low, high = LogEstimate(log=math.log(found.rate), parts=found.parts).interval or (0.0, 0.0)
    rule = BatchRule(max_batch=8, max_wait_s=max_wait_s)

    def in_time(rate: float) -> float:
        served = serve(poisson(rate, num=100_000), law=batched(0.03, 0.01), rule=rule)
        return fmean(one.latency_s <= 0.25 for one in served)

    assert in_time(low) >= 0.95 > in_time(high)
    assert 0.97 * found.rate < low < found.rate < high < 1.03 * found.rate
    assert found.rate < 8 / 0.11


def test_a_full_batch_goes_before_one_that_still_waits() -> None:
    rule = BatchRule(max_batch=2, max_wait_s=10.0)
    arrivals = [Arrival(at_s=float(at_s)) for at_s in range(3)]
    served = serve(arrivals, law=constant(1.0), rule=rule, shapes=["large", "small", "small"])
    assert [one.started_s for one in served] == [10.0, 2.0, 2.0]
    assert rule.decide([], now_s=3.0) == math.inf


@pytest.mark.parametrize(
    ("law", "cv"),
    [
        (constant(2.0), 0.0),
        (fake_server.lognormal(2.0, cv=0.5, seed=1), 0.5),
        (fake_server.exponential(2.0, seed=1), 1.0),
    ],
)
def test_laws_have_their_mean_and_their_spread(law: Law, cv: float) -> None:
    services = [law(1) for _ in range(40_000)]
    assert fmean(services) == pytest.approx(2.0, rel=0.02)
    assert stdev(services) / 2.0 == pytest.approx(cv, rel=0.03)


def test_a_stall_is_in_latencies_from_the_schedule_and_hidden_from_the_moment_of_sending() -> None:
    """40/s evenly on a server of 20 ms that once stalls for 5 s; at most 8 are ever under way.

    Each request after the stall is 25 - 20 = 5 ms sooner done than the one before: the 200th of
    20,000, the 99th percentile, took 5.02 - 200 * 0.005 s. A client that starts its clock when it
    may send sees 8 services at most.
    """
    arrivals = parse_arrivals("uniform:40/s").draw(seconds=500.0, seed=1)
    services = [SERVICE_S] * len(arrivals)
    services[10_000] += 5.0
    taken = iter(services)
    served = serve(arrivals, law=lambda num: next(taken))
    ended = [0.0] * 8 + [one.ended_s for one in served]
    served = [
        replace(one, sent_s=max(one.scheduled_s, free_s))
        for one, free_s in zip(served, ended, strict=False)
    ]
    latencies = [one.latency_s for one in served]
    assert percentile(latencies, 0.5) == pytest.approx(SERVICE_S)
    assert percentile(latencies, 0.99) == pytest.approx(4.02, rel=0.02)
    assert percentile(latencies, 0.999) == pytest.approx(4.92, rel=0.02)
    from_sending = [one.ended_s - one.sent_s for one in served]
    assert percentile(from_sending, 0.99) == pytest.approx(8 * SERVICE_S)
