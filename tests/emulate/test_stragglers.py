"""The slowest of many ranks, against hand-worked numbers and every possible draw."""

import itertools
import random
import statistics

import pytest
from step_traces import trace_of

from bench.emulate.simulate import replay
from bench.emulate.stragglers import expected_step_s, straggler_step_s


def test_one_rank_takes_the_mean_step() -> None:
    estimate = expected_step_s([1.0, 2.0, 6.0], num_ranks=1)
    assert estimate == pytest.approx(3.0)


def test_two_ranks_by_hand() -> None:
    """Of 1 and 3 drawn twice, three of four draws have a 3: 3 * 3/4 + 1 * 1/4."""
    assert expected_step_s([3.0, 1.0], num_ranks=2) == pytest.approx(2.5)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_the_mean_is_that_of_every_possible_draw(num_ranks: int) -> None:
    times_s = [0.7, 1.0, 1.1, 1.1, 2.5]
    every = [max(draw) for draw in itertools.product(times_s, repeat=num_ranks)]
    estimate = expected_step_s(times_s, num_ranks=num_ranks)
    assert estimate == pytest.approx(statistics.fmean(every))


def test_thousands_of_ranks_see_the_slowest_step() -> None:
    estimate = expected_step_s([1.0, 1.1, 1.5], num_ranks=65_536)
    assert estimate == pytest.approx(1.5)


def test_equal_steps_have_no_stragglers() -> None:
    estimate = expected_step_s([0.2] * 30, num_ranks=512)
    assert estimate == pytest.approx(0.2)


def test_more_ranks_never_make_the_step_shorter() -> None:
    draw = random.Random(1)
    times_s = [draw.lognormvariate(0.0, 0.1) for _ in range(100)]
    means_s = [expected_step_s(times_s, num_ranks=2**power) for power in range(12)]
    assert means_s == sorted(means_s)


def test_what_the_link_adds_is_not_drawn() -> None:
    """Compute 0.1 or 0.3, and 0.2 exposed in both: two ranks take 0.25 + 0.2."""
    replays = [
        replay(trace_of([("issue", 0, work_s), ("wait", 0, 0.0)], sizes_bytes=[20]))
        for work_s in (0.1, 0.3)
    ]
    assert straggler_step_s(replays, num_ranks=2) == pytest.approx(0.45)


def test_nothing_measured_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        expected_step_s([], num_ranks=2)
