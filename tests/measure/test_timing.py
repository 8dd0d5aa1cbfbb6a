"""Warm-up and window on simulated devices: every figure is worked out by hand.

Steady is what two adjacent windows show, and the limit is a limit. Ranks that step together stop
together: rank 0's clock and verdict count, for all alike.
"""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fake_device import ONE_ITEM, MixedEngine, QueueEngine, SynchronousEngine, in_turn

from bench.core.nouns import Layout
from bench.measure.timing.clock import FakeClock
from bench.measure.timing.limits import PROFILES, Limits, for_device, within_budget
from bench.measure.timing.warmup import Warmup, is_steady, warm_up
from bench.measure.timing.window import MAX_QUEUED_STEPS, Window, measured_enough, run_window
from bench.parallel.ranks import Ranks, data_rank, join, local_label

SMOKE = PROFILES["smoke"].limits


def warmed(engine: SynchronousEngine, limits: Limits | None = None) -> Warmup:
    return warm_up(engine, limits=limits or Limits())


def test_steady_steps_need_little_more_than_the_minimum_and_others_end_at_a_limit() -> None:
    faster = [0.2 * 0.97**index for index in range(30)]
    usual, slow = Limits(), Limits(warmup_max_s=20.0)
    for step_s, limits, converges, low_s, high_s in (
        # At least 2 s after the first step, and two windows of a second to compare.
        (in_turn(3.0, 0.1), usual, True, 2.0, 3.0),
        # 4 s in which steps get faster by 3 % each, then two windows of at least a second each.
        (in_turn(1.0, *faster), usual, True, sum(faster) + 1.5, sum(faster) + 3.0),
        # Two hundred steps, once ten seconds have passed; or twelve seconds.
        (lambda index: 0.02 * 1.002**index, usual, False, 10.0, 10.8),
        (lambda index: 0.1 * 1.005**index, usual, False, 12.0, 12.8),
        (in_turn(9.0), slow, False, 26.9, 27.1),
        (in_turn(2.0, 0.1), SMOKE, False, 0.09, 0.11),
    ):
        engine = SynchronousEngine(step_s)
        engine.period_steps = 64  # a window has whole periods, a warm-up need not
        warmup = warmed(engine, limits)
        assert warmup.has_converged is converges
        assert low_s <= warmup.wall_s <= high_s
        assert warmup.wall_s == pytest.approx(sum(warmup.step_s[1:])), "the first step is kept"
        assert warmup.recompiles is None
    # Spread is no reason to go on, however fast the steps are.
    source = random.Random(3)
    queue = QueueEngine(lambda _index: source.choice((0.001, 0.004)), host_s=1e-5)
    warmup = warmed(queue)
    assert warmup.has_converged
    assert warmup.wall_s <= 5.0
    # Each half second is synchronised at both ends, and nothing else is.
    assert queue.num_synchronizations <= 2 * (warmup.wall_s / 0.5 + 1)


def disturbed(name: str, *, start: float, each: float) -> SynchronousEngine:
    """An engine with one figure that changes over 60 steps."""

    def step_s(index: int) -> float:
        setattr(engine, name, start + min(index, 60) * each)
        return 0.1

    engine = SynchronousEngine(step_s)
    return engine


def test_compiling_clock_or_allocator_keep_it_from_being_steady() -> None:
    for name, start, each in (("graphs", 1, 1), ("reserved", 0, 1000), ("clock_hz", 1e9, 1e7)):
        warmup = warmed(disturbed(name, start=start, each=each))
        assert warmup.has_converged
        assert 6.0 <= warmup.wall_s <= 8.1
        assert warmup.recompiles == (60 if name == "graphs" else None)


def test_steady_is_defined_by_the_last_two_windows() -> None:
    for step_s, steady in (
        ([0.125] * 16, True),
        ([0.125] * 15, False),  # not two windows of a second
        ([1.0] * 9, False),  # not two windows of five steps
        ([1.0] * 10, True),
        ([1.019] * 5 + [1.0] * 5, True),  # medians within 2 % of the first
        ([1.022] * 5 + [1.0] * 5, False),
        ([1.0] * 7 + [31.0, 1.0, 1.0], True),  # one slow step is no change
        ([1.0, 1.3, 1.6, 1.2, 1.5] * 2, True),  # nor is spread
        ([1.0, 1.3, 1.6, 1.2, 1.5, 1.1, 1.35, 1.7, 1.3, 1.5], True),  # 4 % of noise of 20 %
        ([1.0, 1.01, 0.99, 1.0, 1.01, 1.05, 1.04, 1.06, 1.05, 1.04], False),  # 5 % of 1 %
        ([], False),
    ):
        assert is_steady(step_s) is steady, step_s


def test_accelerators_warm_up_longer_and_small_budgets_shrink_no_minimum() -> None:
    limits = PROFILES["default"].limits
    assert for_device(limits, is_accelerator=False, has_energy=False) == limits
    accelerated = for_device(limits, is_accelerator=True, has_energy=False)
    assert accelerated == replace(limits, warmup_min_s=5.0, warmup_max_s=60.0)
    # Energy is read to 1 or 2 % in 10 s, and nothing else needs them.
    for profile, is_accelerator, window_s in (
        ("quick", True, (10.0, 30.0)),
        ("default", True, (10.0, 30.0)),
        ("default", False, (10.0, 15.0)),
        ("rigorous", False, (10.0, 30.0)),
    ):
        kind = {"is_accelerator": is_accelerator, "has_energy": True}
        read = for_device(PROFILES[profile].limits, **kind)
        assert (read.window_min_s, read.window_max_s) == window_s
    limits = Limits(warmup_max_s=20.0, window_max_s=30.0)
    for trial_s, warmup_s, longest_s in ((1e3, 20.0, 30.0), (40.0, 12.0, 20.0), (0.0, 2.0, 3.0)):
        expected = replace(limits, warmup_max_s=warmup_s, window_max_s=longest_s)
        assert within_budget(limits, trial_s=trial_s) == expected
    assert for_device(SMOKE, is_accelerator=True, has_energy=True) == SMOKE
    assert within_budget(SMOKE, trial_s=0.0) == SMOKE


def ran(engine: SynchronousEngine, num_steps: int, **more: Any) -> Window:
    """Run the window until the rule has seen so many steps."""
    return run_window(engine, should_stop=lambda _, step_s: len(step_s) >= num_steps, **more)


def test_synchronous_steps_are_the_differences_of_the_host_clock() -> None:
    window = ran(SynchronousEngine(in_turn(0.5, 0.25, 1.0, 0.25)), 3)
    assert (window.step_clock, window.host_bound_frac) == ("host", None)
    # Asked after step 1 (0.5 s), then half a second later: 0.5 + 0.25 < 1.0 <= 0.5 + 0.25 + 1.0.
    assert window.step_s == pytest.approx([0.5, 0.25, 1.0])
    assert window.wall_s == pytest.approx(1.75)
    assert window.counts == [ONE_ITEM] * 3
    assert not window.clock_went_backwards

    class Broken(FakeClock):
        def now_s(self) -> float:
            now_s = super().now_s()
            return now_s - 5.0 if now_s >= 1003.0 else now_s

    assert ran(SynchronousEngine(in_turn(1.0), clock=Broken()), 4).clock_went_backwards


def test_rule_is_asked_after_1_2_4_steps_and_then_twice_a_second() -> None:
    agreed: list[int] = []

    def agree(steps: int) -> int:
        agreed.append(steps)
        return steps

    for more in ({}, {"agree": agree}):
        engine = SynchronousEngine(in_turn(0.125))
        asked_at_s: list[float] = []

        def stop(elapsed_s: float, step_s: list[float], asked: list[float] = asked_at_s) -> bool:
            asked.append(elapsed_s)
            assert len(step_s) == round(elapsed_s / 0.125)
            return elapsed_s >= 2

        window = run_window(engine, should_stop=stop, **more)
        assert asked_at_s == [0.125, 0.25, 0.5, 1.0, 1.5, 2.0]
        assert len(window.counts) == 16
    assert agreed == [1, 2, 4, 4, 4, 0]


def test_asynchronous_steps_come_from_events_without_a_synchronisation_each() -> None:
    engine = QueueEngine(in_turn(0.3, 0.1, 0.2), host_s=0.001)
    window = ran(engine, 8, expected_step_s=0.1)
    assert window.step_clock == "event"
    assert len(window.step_s) == len(window.counts) == engine.num_steps
    assert window.step_s[:3] == pytest.approx([0.3, 0.1, 0.2])
    assert sum(window.step_s) == pytest.approx(window.wall_s)
    assert engine.num_synchronizations == 2, "one at each end"
    # Without events each step is synchronised.
    engine = QueueEngine(in_turn(0.3, 0.1, 0.2), host_s=0.05)
    engine.has_events = False
    window = ran(engine, 3)
    assert window.step_clock == "host_sync"
    assert window.step_s[:3] == pytest.approx([0.3, 0.1, 0.2])
    assert engine.deepest_queue == 1


def test_steps_at_the_pace_of_the_host_are_counted_though_events_add_up() -> None:
    for host_s, expected_frac in ((0.05, 1.0), (0.011, 1.0), (0.005, 0.0)):
        for blocks in (False, True):
            engine = QueueEngine(in_turn(0.01), host_s=host_s)
            engine.blocks = blocks
            window = ran(engine, 200, expected_step_s=host_s)
            assert sum(window.step_s) == pytest.approx(window.wall_s, rel=0.01)
            assert window.host_bound_frac == expected_frac, (host_s, blocks)


def test_host_runs_a_bounded_way_ahead_and_passed_events_are_let_go() -> None:
    for step_s, deepest in ((0.001, MAX_QUEUED_STEPS), (0.1, 10), (0.4, 2), (30.0, 2)):
        engine = QueueEngine(in_turn(step_s), host_s=1e-5)
        ran(engine, 150, expected_step_s=step_s)
        assert deepest - 1 <= engine.deepest_queue <= deepest + 1, step_s
    engine = QueueEngine(in_turn(0.001), host_s=1e-5)

    def stop(elapsed_s: float, step_s: list[float]) -> bool:
        assert engine.num_live_events <= MAX_QUEUED_STEPS + 2
        return elapsed_s >= 8

    run_window(engine, should_stop=stop, expected_step_s=0.001)
    assert engine.num_steps >= 8000
    assert engine.num_live_events == 0


def test_window_has_both_minima_and_is_extended_until_the_mean_is_known_or_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule = measured_enough(Limits())
    for elapsed_s, num_steps, is_enough in (
        (2.9, 1000, False),  # too short a time
        (3.0, 19, False),  # too few steps
        (3.0, 40, True),  # both minima, and steps that do not vary
        (6.0, 20, True),
        (119.0, 19, False),  # slow steps may take up to the hard limit
        (120.0, 1, True),
    ):
        assert rule(elapsed_s, [elapsed_s / num_steps] * num_steps) is is_enough, elapsed_s
    with monkeypatch.context() as patch:
        half_width = "bench.core.statistics.batch_means_half_width_frac"
        patch.setattr(half_width, lambda step_s: len(step_s) / 1e6)
        assert rule(4.0, [1e-5] * 400_001), "very many are looked at in blocks"
    # 60 steps in 3 s: a spread of 2 % leaves the mean known to 0.5 %, one of 10 % to 2.6 %
    # (and to 1.5 % after some 9 s), one of 25 % not in 30 s.
    assert noisy_window(sd_frac=0.02).wall_s == pytest.approx(3, abs=0.6)
    assert 5 < noisy_window(sd_frac=0.10).wall_s < 14
    assert noisy_window(sd_frac=0.25).wall_s == pytest.approx(30, abs=0.6)


def noisy_window(*, sd_frac: float, mean_s: float = 0.05, seed: int = 1, **more: Any) -> Window:
    source = random.Random(seed)
    engine = SynchronousEngine(lambda _index: mean_s * (1 + source.gauss(0, sd_frac)))
    enough = measured_enough(Limits(window_max_s=30.0))
    return run_window(engine, should_stop=enough, **more)


def ranks_of(num_ranks: int) -> list[Ranks]:
    from torch.distributed import HashStore

    store = HashStore()
    store.set_timeout(timedelta(seconds=20))
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_ranks))
    return [
        join(store, environment=sizes | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)))
        for rank in range(num_ranks)
    ]


def together(work: Callable[[Ranks], Any]) -> list[Any]:
    """Do the work of every rank at once; a rank that waits for ever fails the test."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        return list(pool.map(work, ranks_of(3), timeout=30))


def test_warm_up_and_window_end_after_the_same_step_in_every_rank() -> None:
    def warm(ranks: Ranks) -> tuple[int, bool]:
        # Only rank 0 is steady; by themselves the others would warm up to the limit.
        steady, unsteady = in_turn(0.5, 0.05), lambda index: 0.05 * 1.005**index
        engine = SynchronousEngine(steady if ranks.is_first else unsteady)
        warmup = warm_up(engine, limits=Limits(), agree=ranks.agree)
        return len(warmup.step_s), warmup.has_converged

    def measure(ranks: Ranks) -> tuple[int, float]:
        mean_s = 0.02 * (1 + ranks.rank)
        window = noisy_window(sd_frac=0.05, mean_s=mean_s, seed=ranks.rank, agree=ranks.agree)
        return len(window.counts), window.wall_s

    def give(ranks: Ranks) -> list[list[Any]]:
        return [ranks.gather(["round", number, ranks.rank]) for number in range(3)]

    (warm_steps, has_converged), *others = together(warm)
    assert has_converged
    assert {count for count, _ in others} == {warm_steps}
    (steps, wall_s), *others = together(measure)
    assert {count for count, _ in others} == {steps}
    assert 3 <= wall_s < 7, "rank 0's own clock, though the others are slower"
    gathered, *empty = together(give)
    assert gathered == [[["round", number, rank] for rank in range(3)] for number in range(3)]
    assert empty == [[[], [], []]] * 2, "values are gathered at rank 0, in order"


def test_each_rank_has_its_cores_its_device_and_its_replica() -> None:
    first, second = both = ranks_of(2)
    for cpu_ids, shares in (
        ((0, 2, 4, 6), [(0, 2), (4, 6)]),
        ((0, 1, 2), [(0,), (1,)]),
        ((5,), [(5,), (5,)]),  # shared where they do not suffice
        ((), [(), ()]),
    ):
        assert [ranks.share(cpu_ids) for ranks in both] == shares
    assert local_label("cuda:0", ranks=first) == "cuda:0"
    assert local_label("npu", ranks=second) == "npu:1"
    assert local_label("cpu", ranks=second) == "cpu"
    layout = Layout(strategy="tp", tensor=2, data=3)
    neighbours = [data_rank(rank, layout=layout) for rank in range(6)]
    assert neighbours == [0, 0, 1, 1, 2, 2], "tensor-parallel neighbours are one replica"


def test_volumes_of_mixed_size_become_steady_and_their_window_ends_with_a_round() -> None:
    # One in eleven is large, so that of adjacent windows of a second one may hold it alone.
    engine = MixedEngine([0.05] * 10 + [2.0])
    assert warmed(engine).has_converged
    measured = run_window(engine, should_stop=lambda _s, done: len(done) >= 30, ends_round=True)
    assert len(measured.counts) % 11 == 0 and len(measured.counts) >= 30
    assert measured.level_s == pytest.approx([2.5 / 11] * len(measured.counts))
    # Not where the round would take longer than what there is.
    engine = MixedEngine([0.05] * 10 + [2.0])
    first = run_window(engine, should_stop=lambda *_: True, ends_round=True)
    assert len(first.counts) == 1
