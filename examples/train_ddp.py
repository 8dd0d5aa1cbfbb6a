"""Train a small convolutional net with DistributedDataParallel: plain PyTorch, nothing of bench.

python examples/train_ddp.py                            # alone
torchrun --nproc-per-node 2 examples/train_ddp.py       # two real ranks
bench wrap --devices 8 --link h100-nvlink,10gbe -- python examples/train_ddp.py
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def main() -> None:
    """Train on random images."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=32)
    flags = parser.parse_args()

    is_rank = "WORLD_SIZE" in os.environ  # as torchrun sets it
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if is_rank:
        dist.init_process_group(dist.get_default_backend_for_device(device))
        if device.type != "cpu":
            device = torch.device(device.type, int(os.environ["LOCAL_RANK"]))
            torch.accelerator.set_device_index(device.index)

    torch.manual_seed(0)
    images, labels = torch.randn(2048, 3, 32, 32), torch.randint(10, (2048,))
    data = TensorDataset(images, labels)
    sampler = DistributedSampler(data) if is_rank else None
    loader = DataLoader(data, flags.batch, sampler=sampler, shuffle=sampler is None)

    width = flags.width
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(4),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.Flatten(), nn.Linear(2 * width * 8 * 8, 1024), nn.ReLU(), nn.Linear(1024, 10),
    ).to(device)  # fmt: skip
    model = DistributedDataParallel(net) if is_rank else net
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    for epoch in range(flags.epochs):
        if sampler is not None:
            sampler.set_epoch(epoch)
        for image, label in loader:
            loss = nn.functional.cross_entropy(model(image.to(device)), label.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not is_rank or dist.get_rank() == 0:
            print(f"epoch {epoch}: loss {loss.item():.3f}")

    if is_rank:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
