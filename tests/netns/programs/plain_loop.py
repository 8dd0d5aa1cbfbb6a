"""A data-parallel loop over many small layers; its argument is the size of a bucket in KiB."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

WIDTH, LAYERS, BATCH = 128, 12, 64


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    net = DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=int(sys.argv[1]) / 1024)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    data = TensorDataset(torch.randn(4096, WIDTH), torch.randn(4096, WIDTH))
    while True:
        for x, y in DataLoader(data, batch_size=BATCH, shuffle=True):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
