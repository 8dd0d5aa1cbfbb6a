"""Plain gradient accumulation, as PyTorch's notes on automatic mixed precision write it."""

import os
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset


def main(every=4):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 1))
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(TensorDataset(torch.randn(16 * 40, 32), torch.randn(16 * 40, 1)), 16)
    for _ in range(10):
        for number, (data, target) in enumerate(loader):
            is_update = (number + 1) % every == 0
            sends = is_update or not dist.is_initialized()
            with nullcontext() if sends else model.no_sync():
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = nn.functional.mse_loss(model(data), target.bfloat16()) / every
                loss.backward()
            if is_update:
                optimizer.step()
                optimizer.zero_grad()
                print("update")


if __name__ == "__main__":
    main()
