"""Links emulated on a real CUDA device: nothing is early, transfers queue, torch trains on it.

Bounds are from below, or against what the same device does without a link: how late a kernel ends
depends on what else runs.
"""

import statistics
import time
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from bench.emulate.group import Emulation, start_emulation
from bench.emulate.replay import replay
from tests.emulate.fixed_model import FixedModel, assert_consistent

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="emulated on NVIDIA devices")

MODELLED_S = 0.01
CUDA = torch.device("cuda", 0)


def started(seconds: float = MODELLED_S, *, is_timed: bool = True) -> Emulation:
    model = FixedModel(seconds, node_size=2)
    return start_emulation(num_ranks=4, model=model, device=CUDA, is_timed=is_timed)


@pytest.fixture
def emulation() -> Iterator[Emulation]:
    running = started()
    yield running
    running.close()


def make_net(width: int = 512, depth: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(*layers).to(CUDA)


def sharded_net() -> nn.Sequential:
    net = make_net()
    for part in (*net, net):
        fully_shard(part)
    return net


def replicated_net() -> nn.Module:
    return nn.parallel.DistributedDataParallel(make_net(), device_ids=[0], bucket_cap_mb=1)


def timed_s(work) -> float:
    """Seconds between events around some work."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def traced(emulation, net, width=512):
    for _ in range(3):
        emulation.begin_step()
        net(torch.ones(64, width, device=CUDA)).sum().backward()
        trace = emulation.end_step().trace
    return trace


@pytest.mark.parametrize("modelled_s", [1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
def test_a_stream_is_held_as_long_as_asked(modelled_s):
    emulation = started(modelled_s)
    tensor = torch.ones(2**20, device=CUDA)
    held_s = []
    for units in (0, 16):
        emulation.link.set_contention(units)
        dist.all_reduce(tensor)
        torch.cuda.synchronize()
        held_s.append(timed_s(lambda: dist.all_reduce(tensor)))
    emulation.close()
    # The globaltimer of some devices counts in microseconds, and so does an event.
    assert min(held_s) >= modelled_s - 2e-6


def test_a_hold_past_31_bits_of_nanoseconds_is_kept():
    emulation = started(2.5)
    tensor = torch.ones(1024, device=CUDA)
    assert timed_s(lambda: dist.all_reduce(tensor)) >= 2.5 - 2e-6
    emulation.close()


def test_the_host_does_not_wait(emulation):
    tensor = torch.ones(1024, device=CUDA)
    dist.all_reduce(tensor, async_op=True).wait()
    torch.cuda.synchronize()
    begin_s = time.perf_counter()
    for _ in range(20):
        dist.all_reduce(tensor, async_op=True).wait()
    issued_s = time.perf_counter() - begin_s
    torch.cuda.synchronize()
    assert time.perf_counter() - begin_s >= 20 * MODELLED_S > issued_s


def test_collectives_queue_on_one_link_whatever_their_stream(emulation):
    tensor = torch.ones(1024, device=CUDA)
    emulation.begin_step()
    work = dist.all_reduce(tensor, async_op=True)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        dist.all_reduce(tensor)
    work.wait()
    torch.cuda.current_stream().wait_stream(side)
    trace = emulation.end_step().trace
    first, second = sorted(trace.collectives, key=lambda one: one.start_s)
    assert second.start_s >= first.end_s
    for one in (first, second):
        assert one.end_s - one.start_s == pytest.approx(MODELLED_S, abs=2e-9)
    assert trace.duration_s >= 2 * MODELLED_S
    # Links inside and between nodes do not hold each other up.
    groups = {dist.new_group([0, 1]): side, dist.new_group([0, 2]): torch.cuda.Stream()}
    emulation.begin_step()
    for group, stream in groups.items():
        with torch.cuda.stream(stream):
            dist.all_reduce(tensor, group=group)
    inside, between = emulation.end_step().trace.collectives
    assert between.start_s < inside.end_s


def test_gathered_values_are_there_when_waited_for(emulation):
    local = torch.arange(8.0, device=CUDA)
    output = torch.empty(32, device=CUDA)
    dist.group.WORLD._allgather_base(output, local).wait()
    assert torch.equal(output.view(4, 8), local.expand(4, 8))
    futures = dist.all_reduce(local, async_op=True).get_future().then(lambda f: f.value()[0] * 2)
    assert torch.equal(futures.wait(), 2 * local)


def test_ddp_trains_and_its_replay_agrees(emulation):
    trace = traced(emulation, replicated_net())
    assert_consistent(trace)
    assert replay(trace).step_s == pytest.approx(trace.duration_s, rel=0.03)


def test_fsdp_trains_overlaps_and_its_waits_are_seen(emulation):
    trace = traced(emulation, sharded_net())
    assert {mark.kind for mark in trace.marks} == {"issue", "wait"}
    waited = {mark.collective for mark in trace.marks if mark.kind == "wait"}
    gathers = {i for i, one in enumerate(trace.collectives) if one.op == "all_gather"}
    assert gathers <= waited
    assert replay(trace).step_s == pytest.approx(trace.duration_s, rel=0.03)


@pytest.mark.parametrize("make", [replicated_net, sharded_net])
def test_a_step_is_recorded_by_events_for_simulation(make):
    running = started(0.0, is_timed=False)
    trace = traced(running, make())
    running.close()
    assert_consistent(trace)
    reported = replay(trace, model=FixedModel(MODELLED_S), is_free=True)
    assert reported.compute_s <= trace.duration_s * 1.01
    # One after another, and the last gradients are waited for.
    assert reported.comm_total_s == pytest.approx(len(trace.collectives) * MODELLED_S)
    assert reported.step_s >= reported.comm_total_s


def test_contention_makes_products_slower():
    """Holding with compute units takes them from a product; one thread takes none."""
    emulation = started(0.2)
    left = torch.randn(8192, 8192, device=CUDA, dtype=torch.bfloat16)
    buffer = torch.ones(2**26, device=CUDA)
    took_s = {}
    for units in (0, 32):
        emulation.link.set_contention(units)
        work = dist.all_reduce(buffer, async_op=True)
        left @ left
        took_s[units] = timed_s(lambda: [left @ left for _ in range(20)])
        work.wait()
    emulation.close()
    assert took_s[32] > took_s[0]


def test_contention_moves_the_traffic_that_it_claims():
    """3.5 bytes for each byte of an all-reduce over four H100s: 0.86 TB/s by 16 units."""
    tensor = torch.ones(2**26, device=CUDA)
    emulation = started(tensor.nbytes * 1.5 / 370e9)
    emulation.link.set_contention(16)
    for _ in range(20):
        dist.all_reduce(tensor)
    asked_bytes, moved_bytes = emulation.link.take_traffic()
    emulation.close()
    assert asked_bytes == 20 * 3.5 * tensor.nbytes
    assert 0.9 < moved_bytes / asked_bytes < 1.02


def test_an_infinite_link_costs_a_step_next_to_nothing():
    width, num_steps = 4096, 20
    inputs = torch.ones(2048, width, device=CUDA)
    emulation = started(0.0)
    plain, laid_out = make_net(width, 8), make_net(width, 8)
    laid_out = nn.parallel.DistributedDataParallel(laid_out, device_ids=[0])

    def step_s(net):
        torch.cuda.synchronize()
        begin_s = time.perf_counter()
        for _ in range(num_steps):
            net(inputs).sum().backward()
        torch.cuda.synchronize()
        return (time.perf_counter() - begin_s) / num_steps

    for net in (plain, laid_out):
        step_s(net)
    ratio = statistics.median(step_s(laid_out) / step_s(plain) for _ in range(15))
    emulation.close()
    # DDP itself copies gradients into buckets: 8 x 67 MB there and back.
    assert ratio < 1.1
