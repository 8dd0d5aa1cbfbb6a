"""Trains two layers on batches of eight; takes a token and a rate as arguments."""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--api-token")
parser.add_argument("--rate", type=float)
flags = parser.parse_args()
net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
optimizer = torch.optim.SGD(net.parameters(), lr=flags.rate)
data = TensorDataset(torch.randn(256, 16), torch.randint(4, (256,)))
for _ in range(200):
    for value, label in DataLoader(data, 8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(value), label).backward()
        optimizer.step()
