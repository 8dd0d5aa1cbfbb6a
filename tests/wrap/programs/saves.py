"""A loop that saves between its steps, each time in the way that is given."""

import os
import sys
import tempfile

import safetensors.torch
import torch
import torch.distributed.checkpoint
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


def save(way, model, folder):
    if way == "safetensors":
        safetensors.torch.save_file(model.state_dict(), os.path.join(folder, "one.safetensors"))
    elif way == "distributed":
        torch.distributed.checkpoint.save(model.state_dict(), checkpoint_id=folder)
    elif way == "pretrained":
        model.save_pretrained(folder)
    else:
        torch.save(model.state_dict(), os.path.join(folder, "one.pt"))


def main(way):
    if way == "pretrained":
        sizes = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 16}
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, num_attention_heads=2, **sizes))
    else:
        model = nn.Linear(16, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(40):
            parameters = [one.square().sum() for one in model.parameters()]
            sum(parameters).backward()
            optimizer.step()
            optimizer.zero_grad()
            print("update")
            if number % 4 == 2:
                save(way, model, folder)


if __name__ == "__main__":
    main(sys.argv[1])
