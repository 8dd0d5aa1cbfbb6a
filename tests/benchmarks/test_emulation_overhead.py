"""What emulating a link adds to a step by itself: on an infinite link, next to nothing.

Run with `pytest tests/benchmarks/test_emulation_overhead.py --benchmark-enable -s`, on a machine
that does little else; without the flag they are skipped. Both sides take turns on the same
tensors, since where these lie in memory alone makes steps 3 % longer or shorter. Compared
is processor time: on an infinite link all is done by the thread that computes. Steps end with the
backward pass; what the optimizer does is the same on both sides.
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
from torch.utils.data import default_collate

from bench import discovery
from bench.core.nouns import Layout
from bench.emulate.emulation import Emulation
from bench.emulate.group import start_emulation
from bench.parallel.spread import spread
from tests.emulate.fixed_model import FixedModel

MANY_RANKS = 65_536
PAIRS = 800
"""Pairs of steps differ by 5 %, their median then by 0.2 %."""


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


def stepping_on(net: nn.Module) -> Callable[[], float]:
    return stepping(net, lambda: net(IMAGES).sum())


def stepping(net: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], float]:
    def step_s() -> float:
        start_s = time.thread_time()
        net.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        return time.thread_time() - start_s

    for _ in range(3):
        step_s()
    return step_s


def recorded(step_s: Callable[[], float], emulation: Emulation) -> Callable[[], float]:
    """As in a window on a CPU: notes are taken in each step, within its time."""

    def recorded_s() -> float:
        start_s = time.thread_time()
        emulation.begin_step()
        step_s()
        notes = emulation.end_step()
        took_s = time.thread_time() - start_s
        assert notes.trace.collectives
        return took_s

    return recorded_s


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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["imaging", "llm"])
def test_an_infinite_link_adds_at_most_one_percent_to_a_workload(
    benchmark: Any, capsys: pytest.CaptureFixture[str], emulation: Emulation, name: str
) -> None:
    workload = discovery.instance(discovery.load(name), size="tiny", overrides={})
    phase = next(one for one in workload.phases if one.is_training)
    samples = workload.dataset(phase, data=None, seed=0)
    batch = default_collate([samples[index] for index in range(workload.batch)])
    torch.manual_seed(0)
    net = workload.build_net().train()
    layout = Layout(strategy="ddp", mode="emulated", data=MANY_RANKS, link="infinite")
    laid = spread(
        net, workload=workload, phase=phase, layout=layout, device=torch.device("cpu"), dtype="fp32"
    )
    # Called by itself, the net is a plain one: DDP's hooks expect nothing and return.
    sides = (
        recorded(stepping(net, lambda: workload.loss(laid.net, batch)), emulation),
        stepping(net, lambda: workload.loss(net, batch)),
    )
    ratios = benchmark.pedantic(lambda: interleaved_ratios(*sides), rounds=1)
    told = f"{name} tiny, recorded on an infinite link / plain"
    assert report(capsys, told, ratios) <= 1.01


@pytest.mark.timeout(900)
def test_an_infinite_link_adds_at_most_one_percent_with_a_collective_for_each_layer(
    benchmark: Any, capsys: pytest.CaptureFixture[str], emulation: Emulation
) -> None:
    net = make_net()
    sides = stepping_on(DistributedDataParallel(net, bucket_cap_mb=0.03)), stepping_on(net)
    ratios = benchmark.pedantic(lambda: interleaved_ratios(*sides), rounds=1)
    assert report(capsys, "infinite link / plain model", ratios) <= 1.01


@pytest.mark.timeout(900)
def test_recording_a_step_adds_at_most_one_percent(
    benchmark: Any, capsys: pytest.CaptureFixture[str], emulation: Emulation
) -> None:
    step_s = stepping_on(DistributedDataParallel(make_net(), bucket_cap_mb=0.03))
    sides = recorded(step_s, emulation), step_s
    ratios = benchmark.pedantic(lambda: interleaved_ratios(*sides), rounds=1)
    assert report(capsys, "recorded / not recorded", ratios) <= 1.01


@pytest.mark.timeout(900)
def test_the_number_of_ranks_does_not_matter(
    benchmark: Any, capsys: pytest.CaptureFixture[str], emulation: Emulation
) -> None:
    net, pair = make_net(), dist.new_group([0, 1])
    many = stepping_on(DistributedDataParallel(net, bucket_cap_mb=0.03))
    two = stepping_on(DistributedDataParallel(net, bucket_cap_mb=0.03, process_group=pair))
    ratios = benchmark.pedantic(lambda: interleaved_ratios(many, two), rounds=1)
    assert abs(report(capsys, f"{MANY_RANKS:,} ranks / 2 ranks", ratios) - 1) <= 0.02


def test_one_collective_on_an_infinite_link(benchmark: Any, emulation: Emulation) -> None:
    tensor = torch.ones(1024)

    def reduce() -> None:
        dist.all_reduce(tensor)

    benchmark(reduce)
    assert tensor[0] == 1
