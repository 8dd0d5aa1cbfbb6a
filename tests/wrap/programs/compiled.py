"""A compiled model; the backend is eager, so that no C++ compiler is needed."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(32, 64)
        self.narrow = nn.Linear(64, 8)

    def forward(self, x):
        return self.narrow(nn.functional.relu(self.wide(x)))


def main(steps=60):
    torch.manual_seed(0)
    model = Net()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
        model = DistributedDataParallel(model)
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        loss = compiled(torch.randn(16, 32)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        print("update")


if __name__ == "__main__":
    main()
