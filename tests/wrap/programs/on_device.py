"""Trains on a device: `on_device.py DEVICE [ddp]`; it never makes it the current one before."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

BATCH, WIDTH = 16, 1024


def main() -> None:
    device = torch.device(sys.argv[1])
    net = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(4)]).to(device)
    if "ddp" in sys.argv:
        dist.init_process_group()
        if device.type != "cpu":
            torch.accelerator.set_device_index(device.index or 0)
        net = DistributedDataParallel(net)
    elif device.type != "cpu":
        assert torch.accelerator.current_device_index() == 0
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    inputs = torch.utils.data.TensorDataset(torch.ones(BATCH * 400, WIDTH))
    for (x,) in torch.utils.data.DataLoader(inputs, batch_size=BATCH):
        net(x.to(device)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
