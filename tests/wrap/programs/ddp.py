"""The loop of PyTorch's DDP tutorial with its DistributedSampler, started by torchrun."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Examples(Dataset):
    def __init__(self, size):
        generator = torch.Generator().manual_seed(0)
        self.data = torch.randn(size, 64, generator=generator)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index], self.data[index].sum() > 0


def main(epochs=3):
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    dataset = Examples(16 * 5 * size)
    sampler = DistributedSampler(dataset, num_replicas=size, rank=rank)
    loader = DataLoader(dataset, batch_size=16, sampler=sampler)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 2))
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss_function = nn.CrossEntropyLoss()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for data, label in loader:
            optimizer.zero_grad()
            loss = loss_function(model(data), label.long())
            loss.backward()
            optimizer.step()
            print("update")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
