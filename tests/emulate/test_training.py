"""Torch's own data parallelism on an emulated link with one rank of four; ours is in parallel."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.emulate.fixed_model import FixedModel, assert_consistent, emulated

NUM_RANKS = 4


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8))


def test_a_compiled_net_reduces_its_gradients_and_a_plain_one_leaves_this_ranks_share() -> None:
    alone, batch = make_net(), torch.ones(2, 8)
    with emulated(FixedModel(0.005, node_size=2), num_ranks=NUM_RANKS) as emulation:
        net: Any = torch.compile(DistributedDataParallel(make_net()), backend="aot_eager")
        for _ in range(3):  # DDP arranges its buckets in the first and agrees on them in the second
            emulation.begin_step()
            net(batch).sum().backward()
            trace = emulation.end_step().trace
        assert_consistent(trace)
        assert {one.op for one in trace.collectives} == {"all_reduce"}
        laid_out = DistributedDataParallel(make_net())
        for one in (alone, laid_out):
            one(batch).sum().backward()
    assert not dist.is_initialized()
    for mine, theirs in zip(alone.parameters(), laid_out.parameters(), strict=True):
        assert torch.allclose(mine.grad / NUM_RANKS, theirs.grad)  # type: ignore[arg-type,operator]
