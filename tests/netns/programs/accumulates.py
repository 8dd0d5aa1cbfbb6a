"""A small transformer; of four backward passes the last one sends the gradients."""

from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

VOCABULARY, WIDTH, LENGTH, BATCH, PASSES = 256, 96, 32, 4, 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, nhead=4, dim_feedforward=4 * WIDTH, dropout=0.0, batch_first=True
        )
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embedding(tokens)))


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    net = DistributedDataParallel(Net())
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    data = TensorDataset(torch.randint(VOCABULARY, (1024, LENGTH + 1)))
    while True:
        for index, (tokens,) in enumerate(DataLoader(data, batch_size=BATCH, shuffle=True)):
            is_last = index % PASSES == PASSES - 1
            with nullcontext() if is_last else net.no_sync():
                guesses = net(tokens[:, :-1]).flatten(0, 1)
                loss = nn.functional.cross_entropy(guesses, tokens[:, 1:].flatten())
                (loss / PASSES).backward()
            if is_last:
                optimizer.step()
                optimizer.zero_grad()


if __name__ == "__main__":
    main()
