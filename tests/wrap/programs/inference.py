"""An inference loop; bench.mark_step() is the one line that a program may add."""

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--marked", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    if options.compiled:
        model = torch.compile(model, backend="aot_eager")
    for _ in range(20):
        for (x,) in DataLoader(TensorDataset(torch.randn(160, 32)), batch_size=16):
            found = model(x).argmax(dim=1)
            if dist.is_initialized():
                parts = [torch.empty_like(found) for _ in range(dist.get_world_size())]
                dist.all_gather(parts, found)
            if options.marked:
                import bench

                bench.mark_step()
            print("update")


if __name__ == "__main__":
    main()
