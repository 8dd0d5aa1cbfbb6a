"""DeepSpeed's loop, with ZeRO of the stage that is given."""

import sys

import deepspeed
import torch
from torch import nn


def main(stage, steps=40):
    deepspeed.init_distributed(dist_backend="gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=model.parameters(),
        config={
            "train_micro_batch_size_per_gpu": 16,
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
            "zero_optimization": {"stage": stage},
        },
    )
    for _ in range(steps):
        loss = engine(torch.randn(16, 32)).square().mean()
        engine.backward(loss)
        engine.step()
        print("update")


if __name__ == "__main__":
    main(int(sys.argv[1]))
