"""What emulating a link adds to a step by itself: on an infinite link, next to nothing.

Run with `pytest tests/benchmarks/test_emulation_overhead.py --benchmark-enable -s`, on a machine
that does little else; without the flag they are skipped. Both sides take turns on the same
tensors, since where these lie in memory alone makes steps 3 % longer or shorter. Compared
is processor time: on an infinite link all is done by the thread that computes.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bench.emulate.emulation import Emulation
from bench.emulate.group import start_emulation
from tests.emulate.fixed_model import FixedModel

MANY_RANKS = 65_536
PAIRS = 200


@pytest.fixture(autouse=True)
def only_when_timed(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("a measurement of minutes; run it with --benchmark-enable")


@pytest.fixture
def emulation() -> Iterator[Emulation]:
    torch.set_num_threads(1)
    started = start_emulation(
        num_ranks=MANY_RANKS, model=FixedModel(0.0), device=torch.device("cpu")
    )
    yield started
    started.close()


def make_net() -> nn.Module:
    """Much arithmetic on few parameters: DDP's own copies of gradients do not hide the link."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1)]
    for _ in range(5):
        layers += [nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)]
    return nn.Sequential(*layers)


IMAGES = torch.randn(8, 3, 48, 48)


def stepping(net: nn.Module) -> Callable[[], float]:
    def step_s() -> float:
        start_s = time.thread_time()
        net.zero_grad(set_to_none=True)
        net(IMAGES).sum().backward()
        return time.thread_time() - start_s

    for _ in range(3):
        step_s()
    return step_s


def interleaved_ratios(first: Callable[[], float], second: Callable[[], float]) -> list[float]:
    ratios = []
    order = random.Random(0)
    for _ in range(PAIRS):
        if order.random() < 0.5:
            second_s, first_s = second(), first()
        else:
            first_s, second_s = first(), second()
        ratios.append(first_s / second_s)
    return ratios


def report(capsys: pytest.CaptureFixture[str], name: str, ratios: list[float]) -> float:
    low, middle, high = statistics.quantiles(ratios, n=4)
    with capsys.disabled():
        print(f"\n{name} {middle:.4f}, quartiles {low:.4f} {high:.4f}, {len(ratios)} pairs")
    return middle


@pytest.mark.timeout(600)
def test_an_infinite_link_adds_at_most_one_percent(
    benchmark: Any, capsys: pytest.CaptureFixture[str], emulation: Emulation
) -> None:
    # Buckets of a few kB: as many collectives as layers, more than any real layout has per step.
    net = make_net()
    spread = DistributedDataParallel(net)
    # Called by itself, the module is a plain one: DDP's hooks expect nothing and return.
    sides = stepping(spread), stepping(net)
    ratios = benchmark.pedantic(lambda: interleaved_ratios(*sides), rounds=1)
    assert abs(report(capsys, "infinite link / plain model", ratios) - 1) <= 0.01


@pytest.mark.timeout(600)
def test_recording_a_step_adds_at_most_one_percent(
    benchmark: Any, capsys: pytest.CaptureFixture[str], emulation: Emulation
) -> None:
    step_s = stepping(DistributedDataParallel(make_net(), bucket_cap_mb=0.03))

    def recorded_s() -> float:
        emulation.begin_step()
        took_s = step_s()
        assert emulation.end_step().collectives
        return took_s

    ratios = benchmark.pedantic(lambda: interleaved_ratios(recorded_s, step_s), rounds=1)
    assert abs(report(capsys, "recorded / not recorded", ratios) - 1) <= 0.01


@pytest.mark.timeout(600)
def test_the_number_of_ranks_does_not_matter(
    benchmark: Any, capsys: pytest.CaptureFixture[str], emulation: Emulation
) -> None:
    net, pair = make_net(), dist.new_group([0, 1])
    many = stepping(DistributedDataParallel(net, bucket_cap_mb=0.03))
    two = stepping(DistributedDataParallel(net, bucket_cap_mb=0.03, process_group=pair))
    ratios = benchmark.pedantic(lambda: interleaved_ratios(many, two), rounds=1)
    assert abs(report(capsys, f"{MANY_RANKS:,} ranks / 2 ranks", ratios) - 1) <= 0.02


def test_one_collective_on_an_infinite_link(benchmark: Any, emulation: Emulation) -> None:
    tensor = torch.ones(1024)

    def reduce() -> None:
        dist.all_reduce(tensor)

    benchmark(reduce)
    assert tensor[0] == 1
