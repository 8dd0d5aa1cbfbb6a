"""Torch's own ways of training over several ranks, on an emulated link with one of them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from bench.emulate.group import Emulation
from bench.emulate.replay import StepTrace, replay
from tests.emulate.fixed_model import FixedModel, emulated

NUM_RANKS = 4
MODELLED_S = 0.005


@pytest.fixture
def emulation() -> Iterator[Emulation]:
    model = FixedModel(MODELLED_S, node_size=2)
    with emulated(model, num_ranks=NUM_RANKS) as started:
        yield started


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8))


def wrap_ddp(net: nn.Module, *, bucket_mib: float = 0.001) -> DistributedDataParallel:
    return DistributedDataParallel(net, bucket_cap_mb=bucket_mib)


def traced_step(emulation: Emulation, net: nn.Module) -> StepTrace:
    """The third step: DDP arranges its buckets in the first and agrees on them in the second."""
    for _ in range(3):
        emulation.begin_step()
        net(torch.ones(2, 8)).sum().backward()
        trace = emulation.end_step().trace
    return trace


def assert_consistent(trace: StepTrace) -> None:
    """What every trace holds: an order that can be lived, and nothing early."""
    cursor_s, issued, waited = 0.0, set(), set()
    for mark in trace.marks:
        assert cursor_s <= mark.start_s <= mark.end_s
        cursor_s = mark.end_s
        one = trace.collectives[mark.collective]
        if mark.kind == "issue":
            assert mark.collective not in issued
            issued.add(mark.collective)
        else:
            assert mark.collective in issued - waited
            assert mark.end_s >= one.end_s
            waited.add(mark.collective)
    assert issued == waited == set(range(len(trace.collectives)))
    assert cursor_s <= trace.duration_s
    for one in trace.collectives:
        assert one.issued_s <= one.start_s
        assert one.end_s - one.start_s == pytest.approx(one.modelled_s, abs=1e-9)
    assert trace.duration_s >= sum(one.modelled_s for one in trace.collectives) or not waited


def ops(trace: StepTrace) -> list[str]:
    return [one.op for one in trace.collectives]


def test_ddp_waits_at_the_end_of_its_backward_pass_and_leaves_this_ranks_share(
    emulation: Emulation,
) -> None:
    net = wrap_ddp(make_net())
    trace = traced_step(emulation, net)
    assert_consistent(trace)
    assert set(ops(trace)) == {"all_reduce"} and len(ops(trace)) >= 2
    kinds = [mark.kind for mark in trace.marks]
    assert kinds == sorted(kinds, reverse=True), "all issues, then all waits"
    assert set(kinds) == {"issue", "drain"}
    # The same compute on the same link, simulated: what waking up took is all that differs.
    assert replay(trace).step_s <= trace.duration_s
    assert replay(trace).comm_total_s == pytest.approx(len(trace.collectives) * MODELLED_S)
    with net.no_sync():
        assert traced_step(emulation, net).collectives == ()
    compiled = torch.compile(wrap_ddp(make_net(), bucket_mib=2), backend="aot_eager")
    trace = traced_step(emulation, compiled)
    assert_consistent(trace)
    assert set(ops(trace)) == {"all_reduce"}, "compiled"
    alone, laid_out = make_net(), wrap_ddp(make_net())
    for net in (alone, laid_out):
        net(torch.ones(2, 8)).sum().backward()
    for mine, theirs in zip(alone.parameters(), laid_out.parameters(), strict=True):
        assert torch.allclose(mine.grad / NUM_RANKS, theirs.grad)  # type: ignore[arg-type]


def test_fsdp_gathers_and_scatters_and_with_tensor_parallel_uses_both_links(
    emulation: Emulation,
) -> None:
    net = make_net()
    for layer in net:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(net)
    trace = traced_step(emulation, net)
    assert_consistent(trace)
    assert ops(trace).count("reduce_scatter") == 2
    assert ops(trace).count("all_gather") >= 2
    assert all(torch.isfinite(p.grad.to_local()).all() for p in net.parameters())  # type: ignore[union-attr]
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    # Ends in something else than a layer that communicates, whose output would be a view.
    net = make_net().append(nn.Tanh())
    parallelize_module(net, mesh["tp"], plan)  # type: ignore[arg-type]
    fully_shard(net, mesh=mesh["dp"])
    trace = traced_step(emulation, net)
    assert_consistent(trace)
    assert {one.group.num_nodes for one in trace.collectives} == {1, 2}


def fp16(net: DistributedDataParallel) -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    net.register_comm_hook(None, default_hooks.fp16_compress_hook)


def power_sgd(net: DistributedDataParallel) -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

    state = powerSGD_hook.PowerSGDState(
        process_group=None,
        matrix_approximation_rank=1,
        start_powerSGD_iter=2,
        min_compression_rate=0.5,
    )
    net.register_comm_hook(state, powerSGD_hook.powerSGD_hook)


def post_local_sgd(net: DistributedDataParallel) -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import post_localSGD_hook

    state = post_localSGD_hook.PostLocalSGDState(
        process_group=None,
        subgroup=dist.new_group([0, 1]),
        start_localSGD_iter=1,
        post_local_gradient_allreduce=True,
    )
    net.register_comm_hook(state, post_localSGD_hook.post_localSGD_hook)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("register", [fp16, power_sgd, post_local_sgd])
def test_communication_hooks_run(emulation: Emulation, register: Callable[[Any], None]) -> None:
    net = wrap_ddp(make_net())
    plain = traced_step(emulation, wrap_ddp(make_net()))
    register(net)
    trace = traced_step(emulation, net)  # PowerSGD compresses from its third step on
    assert_consistent(trace)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if isinstance(p.grad, Tensor))
    if register is fp16:
        sent, halved = (sum(one.num_bytes for one in each.collectives) for each in (plain, trace))
        assert sent == 2 * halved


def test_after_closing_another_emulation_can_start() -> None:
    for num_ranks in (2, 65_536):
        with emulated(FixedModel(), num_ranks=num_ranks) as started:
            assert dist.get_world_size() == num_ranks
            traced_step(started, wrap_ddp(make_net()))
    assert not dist.is_initialized()
