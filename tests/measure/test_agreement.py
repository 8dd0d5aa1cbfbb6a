"""Ranks that step together stop together: rank 0's clock and verdict count, for all alike."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from fake_device import SynchronousEngine, drawn_from, in_turn

from bench.core.nouns import Layout
from bench.measure.timing.limits import Limits
from bench.measure.timing.warmup import warm_up
from bench.measure.timing.window import measured_enough, run_window
from bench.parallel.ranks import Ranks, data_rank, join, local_label


def ranks_of(num_ranks: int) -> list[Ranks]:
    from torch.distributed import HashStore

    store = HashStore()
    store.set_timeout(timedelta(seconds=20))
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_ranks))
    return [
        join(store, environment=sizes | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)))
        for rank in range(num_ranks)
    ]


def together(work: Callable[[Ranks], Any], *, num_ranks: int = 3) -> list[Any]:
    """Do the work of every rank at once; a rank that waits for ever fails the test."""
    with ThreadPoolExecutor(max_workers=num_ranks) as pool:
        return list(pool.map(work, ranks_of(num_ranks), timeout=30))


def noisy(rank: int) -> Callable[[int], float]:
    source = random.Random(rank)
    mean_s = 0.02 * (1 + rank)
    return drawn_from(iter(lambda: mean_s * (1 + source.gauss(0, 0.05)), None))


def test_warm_up_and_window_end_after_the_same_step_in_every_rank() -> None:
    def warm(ranks: Ranks) -> tuple[int, bool]:
        # Only rank 0 is steady; by themselves the others would warm up to the limit.
        steady, unsteady = in_turn(0.5, 0.05), lambda index: 0.05 * (1 + index % 7)
        engine = SynchronousEngine(steady if ranks.is_first else unsteady)
        warmup = warm_up(engine, clock=engine.clock, limits=Limits(), agree=ranks.agree)
        return len(warmup.step_s), warmup.has_converged

    def measure(ranks: Ranks) -> tuple[int, float]:
        engine = SynchronousEngine(noisy(ranks.rank))
        enough = measured_enough(Limits(window_max_s=30.0))
        window = run_window(engine, clock=engine.clock, should_stop=enough, agree=ranks.agree)
        return len(window.counts), window.wall_s

    (warm_steps, has_converged), *others = together(warm)
    assert has_converged
    assert {count for count, _ in others} == {warm_steps}
    (steps, wall_s), *others = together(measure)
    assert {count for count, _ in others} == {steps}
    assert 10 <= wall_s < 12, "rank 0's own clock, though the others are slower"


def test_looks_are_as_many_steps_apart_as_a_second_takes() -> None:
    asked: list[int] = []

    def agree(steps: int) -> int:
        asked.append(steps)
        return steps

    engine = SynchronousEngine(in_turn(0.125))
    window = run_window(
        engine, clock=engine.clock, should_stop=lambda elapsed_s, _: elapsed_s >= 4, agree=agree
    )
    assert asked == [1, 2, 4, 8, 8, 8, 0]
    assert len(window.counts) == 32


def test_values_are_gathered_at_rank_0_in_order() -> None:
    def give(ranks: Ranks) -> list[list[Any]]:
        return [ranks.gather(["round", number, ranks.rank]) for number in range(3)]

    first, *others = together(give, num_ranks=4)
    assert first == [[["round", number, rank] for rank in range(4)] for number in range(3)]
    assert all(one == [[], [], []] for one in others)


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
