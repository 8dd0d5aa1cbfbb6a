"""Asks torch.distributed for all that scripts ask it for, then trains; fails where it is wrong."""

import datetime
import os
import tempfile
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed import checkpoint, rpc
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage

from bench.core.errors import BenchError

torchrun_gives = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
assert torchrun_gives.items() <= os.environ.items()


def refused(ask: Callable[[], object]) -> str:
    """Return the line that a program gets for what would hang."""
    try:
        ask()
    except BenchError as error:
        return str(error)
    raise AssertionError("it was not refused")


assert "4 ranks, but --devices says 8" in refused(
    lambda: dist.init_process_group("gloo", world_size=4, rank=0)
)
assert "as rank 3" in refused(lambda: dist.init_process_group(rank=3, world_size=8))
dist.TCPStore("127.0.0.1", 0, 8, True)  # waits for the other seven
dist.init_process_group(
    "nccl", init_method="tcp://10.1.2.3:1234", world_size=8, rank=0, timeout=datetime.timedelta(60)
)
assert (dist.get_world_size(), dist.get_rank()) == (8, 0)
assert dist.get_backend() == ("nccl" if dist.is_nccl_available() else "gloo")

# Groups -------------------------------------------------------------------------------------------

with_options = dist.new_group([0, 1, 2], backend="nccl", pg_options=object())
assert with_options.size() == 3
assert dist.new_group([1, 2]) is dist.GroupMember.NON_GROUP_MEMBER
assert dist.new_subgroups(2)[0].size() == 2
part = dist.split_group(split_ranks=[[2, 3], [0, 1, 4]])
assert dist.get_process_group_ranks(part) == [0, 1, 4]
gloo = dist.new_group(backend="gloo")
dist.monitored_barrier(gloo)
dist.barrier(device_ids=[0])
assert init_device_mesh("cpu", (8,)).size() == 8
mesh = init_device_mesh("cpu", (4, 2), mesh_dim_names=("dp", "tp"))
assert mesh["tp"].get_group().size() == 2 and mesh["dp"].size() == 4

# What other ranks would have sent -----------------------------------------------------------------

objects = [None] * 8
dist.all_gather_object(objects, {"loss": 0.5})
assert objects == [{"loss": 0.5}] * 8
for source in (0, 3):
    objects = ["own", 1]
    dist.broadcast_object_list(objects, src=source)
    assert objects == ["own", 1]
for target in (0, 3):
    gathered = [None] * 8 if target == 0 else None
    dist.gather_object("own", gathered, dst=target)
    assert gathered in (None, ["own"] * 8)
for source, expected in ((0, "for 0"), (3, "own")):
    received = ["own"]
    given = [f"for {rank}" for rank in range(8)] if source == 0 else None
    dist.scatter_object_list(received, given, src=source)
    assert received == [expected]
received = ["own"]
assert dist.recv_object_list(received, src=5) == 5 and received == ["own"]
dist.send_object_list(["own"], dst=5)
in_part = ["own"]
dist.broadcast_object_list(in_part, group=part, group_src=2)
assert in_part == ["own"]

stop = torch.tensor([1.0])
dist.all_reduce(stop)
assert stop.item() == 8, "a program that stops when all ranks want to must stop"
mean = torch.tensor([3.0])
dist.all_reduce(mean, op=dist.ReduceOp.MAX)
assert mean.item() == 3
weights = torch.full([1000], 3.0)
dist.broadcast(weights, src=4)
assert weights.unique().item() == 3
store = dist.distributed_c10d._get_default_store()
store.set("own", "1")
assert store.get("own") == b"1"
assert "waits for theirs in a store" in refused(lambda: store.get("theirs"))
assert "pipeline" in refused(lambda: PipelineStage(torch.nn.Identity(), 0, 8, "cpu"))
assert "init_rpc" in refused(lambda: rpc.init_rpc("worker0", rank=0, world_size=8))

shards = fully_shard(torch.nn.Linear(64, 64), mesh=init_device_mesh("cpu", (8,)))
with tempfile.TemporaryDirectory() as folder:
    for move in (checkpoint.save, checkpoint.load):
        move(shards.state_dict(), checkpoint_id=folder)

# A training, with a hook and with uneven inputs ---------------------------------------------------

from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook  # noqa: E402
from torch.distributed.algorithms.join import Join  # noqa: E402
from torch.distributed.optim import ZeroRedundancyOptimizer  # noqa: E402

net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(256, 256))
state = powerSGD_hook.PowerSGDState(None, start_powerSGD_iter=2)
net.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
half = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(256, 256))
half.register_comm_hook(None, default_hooks.fp16_compress_hook)
optimizer = ZeroRedundancyOptimizer(
    [*net.parameters(), *half.parameters()], optimizer_class=torch.optim.AdamW
)
with Join([net]):
    for _ in range(3):
        net(torch.ones(4, 256)).sum().backward()
print("all was answered", flush=True)
for _ in range(300):
    half(net(torch.ones(16, 256))).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
