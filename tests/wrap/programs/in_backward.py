"""An optimizer for each parameter, stepped in the backward pass, as PyTorch's tutorial has it."""

import torch
from torch import nn


def main(steps=60):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    optimizers = {one: torch.optim.Adam([one], foreach=False) for one in model.parameters()}

    def update(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    for _ in range(steps):
        model(torch.randn(16, 32)).square().mean().backward()
        print("update")


if __name__ == "__main__":
    main()
