"""What emulating a link adds to a step by itself: on an infinite link, next to nothing.

Run with `pytest tests/benchmarks/test_emulation_overhead.py --benchmark-enable -s`, on a machine
that does little else; without the flag they are skipped. Both sides take turns on the same
tensors, since where these lie in memory alone makes steps 3 % longer or shorter. Compared
is processor time: on an infinite link all is done by the thread that computes. Steps end with the
backward pass; what the optimizer does is the same on both sides.

DDP copies gradients into buckets, among real ranks as here: that is no cost of emulation. So the
backend is compared with DDP whose communication is complete at once, without any backend; and DDP
over the backend with the plain net, where gradients are few or the bound leaves room for copies.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bench import discovery
from bench.emulate.group import Emulation
from tests.benchmarks.conftest import Report, interleaved_ratios
from tests.emulate.fixed_model import FixedModel, emulated
from tests.workloads.steps_of_workloads import generated_batch

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("only_when_timed")]

MANY_RANKS = 65_536
MEASURED_S = 100.0
FEWEST_PAIRS = 60
"""Pairs of steps differ by 5 %, the median of 60 by 0.8 %, of 600 by 0.3 %."""


@pytest.fixture
def emulation() -> Iterator[Emulation]:
    torch.set_num_threads(1)
    with emulated(FixedModel(0.0), num_ranks=MANY_RANKS) as started:
        yield started


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


def ratios_of(benchmark: Any, *sides: Callable[[], float]) -> list[float]:
    """Ratios of both sides, timed as one round."""
    found: list[float] = benchmark.pedantic(
        lambda: interleaved_ratios(*sides, fewest=FEWEST_PAIRS, measured_s=MEASURED_S), rounds=1
    )
    return found


class Spread:
    """A workload's net under DDP whose gradients go over the link, or are exchanged at once."""

    def __init__(self, name: str, *, size: str) -> None:
        workload = discovery.instance(discovery.load(name), size=size, overrides={})
        phase = next(one for one in workload.phases if one.is_training)
        batch = generated_batch(workload, phase)
        torch.manual_seed(0)
        self.net = workload.build_net().train()
        self.ddp = DistributedDataParallel(self.net, gradient_as_bucket_view=True)
        self.ddp.register_comm_hook(None, self._exchange)
        self.is_linked = True
        self._loss: Any = lambda net: workload.loss(net, batch)

    def _exchange(
        self,
        _state: None,
        bucket: dist.GradBucket,  # type: ignore[name-defined]  # DDP insists on this name
    ) -> torch.futures.Future[torch.Tensor]:
        gradients = bucket.buffer().div_(MANY_RANKS)
        if self.is_linked:
            work: Any = dist.all_reduce(gradients, async_op=True)
            sent: torch.futures.Future[torch.Tensor] = work.get_future()
            return sent.then(lambda sent: sent.value()[0])
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(gradients)
        return done

    def step(self, *, is_linked: bool) -> Callable[[], float]:
        """Return a step of DDP, with or without the backend."""

        def loss() -> Any:
            self.is_linked = is_linked
            return self._loss(self.ddp)

        return stepping(self.net, loss)

    def plain_step(self) -> Callable[[], float]:
        """Return a step of the net by itself: DDP's hooks expect nothing then and return."""
        return stepping(self.net, lambda: self._loss(self.net))


@pytest.mark.parametrize(
    ("name", "size", "against", "limit"),
    [
        ("imaging", "tiny", "no backend", 1.01),
        ("imaging", "small", "no backend", 1.01),
        # The backend takes 0.2 ms a step, where the whole step takes 15.
        ("llm", "tiny", "no backend", 1.03),
        ("llm", "small", "no backend", 1.01),
        ("imaging", "small", "plain net", 1.05),
        ("llm", "small", "plain net", 1.05),
    ],
)
def test_the_backend_adds_next_to_nothing_to_a_workload(
    benchmark: Any,
    report: Report,
    emulation: Emulation,
    name: str,
    size: str,
    against: str,
    limit: float,
) -> None:
    laid_out = Spread(name, size=size)
    linked = recorded(laid_out.step(is_linked=True), emulation)
    is_plain = against == "plain net"
    other = laid_out.plain_step() if is_plain else laid_out.step(is_linked=False)
    reported = f"{name} {size}: DDP over the infinite link, recorded / {against}"
    assert report(reported, ratios_of(benchmark, linked, other)) <= limit


def linked_step(net: nn.Module, **flags: Any) -> Callable[[], float]:
    """A step with a collective for each layer."""
    return stepping_on(DistributedDataParallel(net, bucket_cap_mb=0.03, **flags))


def test_an_infinite_link_and_its_recording_add_at_most_one_percent(
    benchmark: Any, report: Report, emulation: Emulation
) -> None:
    net = make_net()
    plain, linked = stepping_on(net), linked_step(net)

    def measure() -> tuple[list[float], list[float]]:
        pairs = {"fewest": FEWEST_PAIRS, "measured_s": MEASURED_S}
        return (
            interleaved_ratios(linked, plain, **pairs),
            interleaved_ratios(recorded(linked, emulation), linked, **pairs),
        )

    by_link, by_recording = benchmark.pedantic(measure, rounds=1)
    assert report("infinite link / plain model", by_link) <= 1.01
    assert report("recorded / not recorded", by_recording) <= 1.01


def test_the_number_of_ranks_does_not_matter(
    benchmark: Any, report: Report, emulation: Emulation
) -> None:
    net = make_net()
    many, two = linked_step(net), linked_step(net, process_group=dist.new_group([0, 1]))
    ratios = ratios_of(benchmark, many, two)
    assert abs(report(f"{MANY_RANKS:,} ranks / 2 ranks", ratios) - 1) <= 0.02


def test_one_collective_on_an_infinite_link(benchmark: Any, emulation: Emulation) -> None:
    tensor = torch.ones(1024)
    benchmark(lambda: dist.all_reduce(tensor))
    assert tensor[0] == 1
