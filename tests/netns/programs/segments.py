"""A small U-shaped net that learns to segment images: much compute, few parameters."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

CHANNELS, EDGE, BATCH = 16, 64, 2


def block(inputs: int, outputs: int) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.LeakyReLU()]
    layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs)]
    return nn.Sequential(*layers, nn.LeakyReLU())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = block(1, CHANNELS), block(CHANNELS, 2 * CHANNELS)
        self.down, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.joined = block(3 * CHANNELS, CHANNELS)
        self.head = nn.Conv2d(CHANNELS, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(x)
        coarse = self.up(self.coarse(self.down(fine)))
        return self.head(self.joined(torch.cat([fine, coarse], dim=1)))


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    net = DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    images = torch.randn(256, 1, EDGE, EDGE)
    data = TensorDataset(images, (images[:, 0] > 0).long())
    while True:
        for image, label in DataLoader(data, batch_size=BATCH, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(image), label).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
