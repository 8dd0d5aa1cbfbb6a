"""Warm-up: steady is what two adjacent windows show, and the limit is a limit."""

import itertools
import random

import pytest
from fake_device import QueueEngine, SynchronousEngine, drawn_from, in_turn

from bench.measure.timing.limits import PROFILES, Limits, for_device, within_budget
from bench.measure.timing.warmup import Warmup, is_steady, warm_up

SMOKE = PROFILES["smoke"].limits


def warmed(engine: SynchronousEngine, limits: Limits | None = None) -> Warmup:
    return warm_up(engine, clock=engine.clock, limits=limits or Limits())


def test_steady_steps_need_little_more_than_the_minimum() -> None:
    warmup = warmed(SynchronousEngine(in_turn(3.0, 0.1)))
    assert warmup.has_converged
    assert warmup.step_s[0] == pytest.approx(3.0), "the first step is kept"
    # At least 2 s after the first step, and two windows of a second to compare.
    assert 2.0 <= warmup.wall_s <= 3.0
    assert warmup.wall_s == pytest.approx(sum(warmup.step_s[1:]))
    assert warmup.recompiles is None


def test_steps_that_become_faster_are_waited_for() -> None:
    faster = [0.2 * 0.97**index for index in range(30)]
    warmup = warmed(SynchronousEngine(in_turn(1.0, *faster)))
    assert warmup.has_converged
    # 4 s in which steps get faster by 3 % each, then two windows of at least a second each.
    assert sum(faster) + 1.5 <= warmup.wall_s <= sum(faster) + 3.0


def test_steps_that_never_settle_end_at_a_limit_unsteady() -> None:
    warmup = warmed(SynchronousEngine(drawn_from(itertools.cycle((0.05, 0.2)))))
    assert not warmup.has_converged
    # Two hundred steps, once ten seconds have passed: whatever is later.
    assert 10.0 <= warmup.wall_s <= 20.6
    slow = warmed(SynchronousEngine(in_turn(9.0)), Limits(warmup_max_s=20.0))
    assert not slow.has_converged
    assert (len(slow.step_s), slow.wall_s) == (4, pytest.approx(27.0))
    smoke = warmed(SynchronousEngine(in_turn(2.0, 0.1)), SMOKE)
    assert smoke.step_s == pytest.approx([2.0, 0.1])
    assert not smoke.has_converged


def test_fast_steps_are_not_cut_into_windows_of_one_step() -> None:
    source = random.Random(3)
    times_s = iter(lambda: source.choice((0.001, 0.004)), None)
    engine = QueueEngine(drawn_from(times_s), host_s=1e-5)
    warmup = warmed(engine)
    assert not warmup.has_converged
    assert 10.0 <= warmup.wall_s <= 11.0
    # Each half second is synchronised at both ends, and nothing else is.
    assert engine.num_synchronizations <= 2 * (11 / 0.5 + 1)


@pytest.mark.parametrize("disturbed", ["graphs", "reserved", "clock"])
def test_compiling_clock_or_allocator_keep_it_from_being_steady(disturbed: str) -> None:
    def step_s(index: int) -> float:
        if index <= 60 and disturbed == "graphs":
            engine.graphs = 1 + index
        if disturbed == "reserved":
            engine.reserved = min(index, 60) * 1000
        if disturbed == "clock":
            engine.clock_hz = 1e9 + min(index, 60) * 1e7
        return 0.1

    engine = SynchronousEngine(step_s)
    warmup = warmed(engine)
    assert warmup.has_converged
    assert 6.0 <= warmup.wall_s <= 8.1
    assert warmup.recompiles == (60 if disturbed == "graphs" else None)


def test_steady_is_defined_by_the_last_two_windows() -> None:
    for step_s, steady in (
        ([0.125] * 16, True),
        ([0.125] * 15, False),  # not two windows of a second
        ([1.0] * 9, False),  # not two windows of five steps
        ([1.0] * 10, True),
        ([1.019] * 5 + [1.0] * 5, True),  # medians within 2 % of the middle
        ([1.022] * 5 + [1.0] * 5, False),
        ([1.0] * 7 + [2.9, 1.0, 1.0], True),  # one slow step is not unsteady
        ([1.0] * 7 + [3.1, 1.0, 1.0], False),  # one of over three medians is
        ([1.0, 1.02, 1.04, 1.06, 1.08] * 2, True),  # quartiles 1.02 and 1.06: 0.04 of 1.04
        ([1.0, 1.03, 1.06, 1.09, 1.12] * 2, False),  # 0.06 of 1.06
        ([], False),
    ):
        assert is_steady(step_s) is steady, step_s


def test_accelerators_warm_up_longer_and_small_budgets_shrink_no_minimum() -> None:
    limits = PROFILES["default"].limits
    assert for_device(limits, is_accelerator=False) == limits
    accelerated = for_device(limits, is_accelerator=True)
    assert (accelerated.warmup_min_s, accelerated.warmup_max_s) == (5.0, 60.0)
    limits = Limits(warmup_max_s=20.0, window_max_s=30.0)
    assert within_budget(limits, trial_s=1000.0) == limits
    half = within_budget(limits, trial_s=40.0)
    assert (half.warmup_max_s, half.window_max_s) == (12.0, 20.0)
    least = within_budget(limits, trial_s=0.0)
    assert (least.warmup_max_s, least.window_max_s) == (2.0, 10.0)
    assert least.window_min_s == limits.window_min_s
    assert least.window_min_steps == limits.window_min_steps
    assert for_device(SMOKE, is_accelerator=True) == SMOKE == within_budget(SMOKE, trial_s=0.0)
