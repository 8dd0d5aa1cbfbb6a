import time
from typing import Any

import torch

from bench import discovery
from workloads.sleep import Workload

TRAIN, INFER = Workload.phases
TINY = Workload(**Workload.sizes["tiny"])


def elapsed_s(work: Any, *, repeats: int) -> list[float]:
    """Times of the bare calls; results are kept, so that freeing them is not timed."""
    times_s, kept = [], []
    for _ in range(repeats):
        start_s = time.perf_counter()
        kept.append(work())
        times_s.append(time.perf_counter() - start_s)
    return times_s


# A busy machine can only make a wait longer, so the shortest of several shows what is waited for.
@torch.inference_mode()
def test_inference_takes_its_time_to_a_thousandth() -> None:
    net, batch = TINY.build_net(), torch.rand(1, 8)
    times_s = elapsed_s(lambda: TINY.infer(net, batch), repeats=25)
    assert TINY.seconds <= min(times_s) < TINY.seconds * 1.001


def test_training_waits_three_times_as_long() -> None:
    net, batch = TINY.build_net(), torch.rand(1, 8)
    times_s = elapsed_s(lambda: TINY.loss(net, batch), repeats=9)
    assert 3 * TINY.seconds <= min(times_s) < 3 * TINY.seconds * 1.001


def test_the_train_factor_can_be_set() -> None:
    sleep = Workload(seconds=0.02, train_factor=0.5)
    net, batch = sleep.build_net(), torch.rand(1, 8)
    assert 0.01 <= min(elapsed_s(lambda: sleep.loss(net, batch), repeats=9)) < 0.0101
    assert sleep.simulated_step_s(TRAIN) == 0.01
    assert sleep.simulated_step_s(INFER) == 0.02


def test_it_trains_and_counts_its_samples() -> None:
    net = TINY.build_net()
    batch = torch.stack(list(TINY.dataset(TRAIN, data=None, seed=0))[:4])
    assert TINY.items(TRAIN, batch) == 4
    assert TINY.items(TRAIN, None) == TINY.batch
    before = net.weight.detach().clone()
    loss = TINY.loss(net, batch)
    loss.backward()
    TINY.optimizer(net).step()
    assert not torch.equal(before, net.weight)


def test_it_is_kept_out_of_all_workloads() -> None:
    assert discovery.load("sleep").cls.is_selftest
