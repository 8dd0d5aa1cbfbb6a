"""Trains by one of torch's strategies, started by one of its launchers: `spread.py HOW [START]`."""

import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

BATCH, WIDTH, STEPS = 16, 512, 300


def spread(net: nn.Module, how: str, num_ranks: int) -> nn.Module:
    if how == "ddp":
        return DistributedDataParallel(net)
    if how == "fsdp1":
        return FullyShardedDataParallel(net, use_orig_params=True, device_id=torch.device("cpu"))
    if how == "fsdp2":
        for layer in net:
            fully_shard(layer)
        return fully_shard(net)
    if how == "tp":
        mesh = init_device_mesh("cpu", (num_ranks // 2, 2), mesh_dim_names=("dp", "tp"))
        plan = {str(at): RowwiseParallel() if at % 2 else ColwiseParallel() for at in range(4)}
        return parallelize_module(net, mesh["tp"], plan)
    return net


def train(rank: int, num_ranks: int, how: str) -> None:
    if how not in ("alone", "late"):
        dist.init_process_group("gloo", rank=rank, world_size=num_ranks)
    net = spread(nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(4)]), how, num_ranks)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    inputs = torch.utils.data.TensorDataset(torch.ones(BATCH * STEPS, WIDTH))
    for step, (x,) in enumerate(torch.utils.data.DataLoader(inputs, batch_size=BATCH)):
        if how == "late" and step == 4:
            dist.init_process_group("gloo")
        net(x).square().mean().backward()
        if how in ("hand", "late") and dist.is_initialized():
            for one in net.parameters():
                dist.all_reduce(one.grad)
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    how, start = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if start == "spawn":
        mp.spawn(train, args=(num_ranks, how), nprocs=num_ranks)
    elif start == "fork":
        mp.start_processes(train, args=(num_ranks, how), nprocs=num_ranks, start_method="fork")
    elif start == "processes":
        context = mp.get_context("spawn")
        started = [
            context.Process(target=train, args=(rank, num_ranks, how)) for rank in range(num_ranks)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
    else:
        train(int(os.environ.get("RANK", "0")), num_ranks, how)
