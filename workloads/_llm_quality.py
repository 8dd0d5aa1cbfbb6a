"""Whether a language model's output can be right, and how much the model has learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from workloads._llm_net import causal_loss
from workloads._text import unigram_entropy_nats


def quality(net: nn.Module, samples: Sequence[Any], *, batch: int) -> dict[str, float]:
    """Mean loss on training windows, and the entropy of their own byte frequencies.

    The second is what the best predictor that ignores context would score on these very windows,
    so a model below it has learned something of the order of the text.
    """
    windows = [samples[index] for index in range(len(samples))]
    device = next(net.parameters()).device
    total_nats = 0.0
    with torch.no_grad():
        for start in range(0, len(windows), batch):
            ids = torch.stack(windows[start : start + batch]).to(device)
            total_nats += float(causal_loss(net, ids)) * len(ids)
    return {
        "loss_nats": total_nats / len(windows),
        "unigram_entropy_nats": unigram_entropy_nats(torch.stack(windows).numpy()),
    }


def check(output: Any, *, vocab: int) -> None:
    """Raise ValueError unless every float is finite and every id is in the vocabulary."""
    parts = output if isinstance(output, dict) else {"output": torch.as_tensor(output)}
    for name, tensor in parts.items():
        if tensor.is_floating_point():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} is not finite")
        elif not bool(((tensor >= 0) & (tensor < vocab)).all()):
            raise ValueError(f"{name} holds token ids outside 0 to {vocab - 1}")
