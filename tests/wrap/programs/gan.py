"""The loop of PyTorch's DCGAN tutorial; with --critic-steps that of the WGAN paper."""

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--critic-steps", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
    critic = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
        generator = DistributedDataParallel(generator)
        critic = DistributedDataParallel(critic)
    optimizer_d = torch.optim.Adam(critic.parameters(), lr=2e-4)
    optimizer_g = torch.optim.RMSprop(generator.parameters(), lr=2e-4)
    loader = DataLoader(TensorDataset(torch.randn(32 * 60, 16)), batch_size=32)
    loss_function = nn.BCEWithLogitsLoss()
    for _ in range(10):
        for number, (real,) in enumerate(loader):
            ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
            critic.zero_grad()
            loss_function(critic(real), ones).backward()
            fake = generator(torch.randn(len(real), 8))
            loss_function(critic(fake.detach()), zeros).backward()
            optimizer_d.step()
            if (number + 1) % options.critic_steps == 0:
                generator.zero_grad()
                loss_function(critic(fake), ones).backward()
                optimizer_g.step()
                print("update")


if __name__ == "__main__":
    main()
