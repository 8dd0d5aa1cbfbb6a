"""A data-parallel loop as in the tutorials of torch; with a number it spawns its ranks itself."""

import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

WIDTH, BATCH = 256, 8


def main() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    ddp = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=1e-3)
    data = TensorDataset(torch.randn(4096, WIDTH), torch.randn(4096, WIDTH))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=BATCH, sampler=sampler)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.mse_loss(ddp(x), y).backward()
            optimizer.step()
    print(f"rank {dist.get_rank()} is through")


def run(rank: int, num_ranks: int, backend: str = "gloo") -> None:
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29513")
    dist.init_process_group(backend, rank=rank, world_size=num_ranks)
    try:
        main()
    finally:
        dist.barrier()
        print(f"rank {rank} leaves well")
        dist.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        num_ranks, *backend = sys.argv[1:]
        mp.spawn(run, args=(int(num_ranks), *backend), nprocs=int(num_ranks))
    else:
        run(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
