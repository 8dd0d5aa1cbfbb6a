"""A loop in the manner of nanoGPT: no loader, an estimate of the loss and a checkpoint between."""

import argparse
import os
import tempfile

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset


@torch.no_grad()
def estimate_loss(model):
    model.eval()
    losses = torch.zeros(20)
    for place in range(20):
        losses[place] = model(torch.randn(16, 32)).square().mean()
    model.train()
    return losses.mean()


@torch.no_grad()
def score(model, loader):
    return sum(model(x).square().sum().item() for (x,) in loader)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--eval-interval", type=int, default=5)
    parser.add_argument("--second-loader", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.Dropout(0.1), nn.Linear(64, 8))
    raw_model, is_main = model, os.environ.get("RANK", "0") == "0"
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
        model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    training = DataLoader(TensorDataset(torch.randn(160, 32)), batch_size=16)
    validation = DataLoader(TensorDataset(torch.randn(64, 32)), batch_size=16)
    batches = iter(training)
    folder = tempfile.mkdtemp()
    for step in range(options.steps):
        if step % options.eval_interval == 0 and is_main:
            if options.second_loader:
                score(model, validation)
            else:
                estimate_loss(model)
                torch.save(raw_model.state_dict(), os.path.join(folder, "ckpt.pt"))
        if options.second_loader:
            try:
                (x,) = next(batches)
            except StopIteration:
                batches = iter(training)
                (x,) = next(batches)
        else:
            x = torch.randn(16, 32)
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print("update")


if __name__ == "__main__":
    main()
