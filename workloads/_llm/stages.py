"""A Llama cut into pipeline stages: embedding and layers, layers, layers with norm, head and loss.

Layers are dealt out so that the slowest stage, by matrix products, is as fast as can be: the head
of a large vocabulary is worth several layers. A stage takes the hidden states of the one before it
and the batch, and hands on hidden states; the last one returns the loss. Tied embeddings are one
parameter in the first and the last stage. Letters: B batch, T tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from workloads._llm.llm_cost import LlamaShape, layer_matrix_parameters


class LlamaStage(nn.Module):
    """Some layers of a Llama, with what comes before the first and after the last."""

    def __init__(self, net: Any, *, first: int, last: int, is_final: bool) -> None:
        super().__init__()
        self.embedding = net.model.embed_tokens if first == 0 else None
        self.layers = nn.ModuleList(list(net.model.layers)[first:last])
        self.rotary = net.model.rotary_emb
        self.norm = net.model.norm if is_final else None
        self.head = net.lm_head if is_final else None

    def forward(self, hidden_bth: torch.Tensor | None, ids_bt: torch.Tensor) -> torch.Tensor:
        """Return hidden states (B, T, H), or the final stage's loss; ids hold T + 1 tokens."""
        if self.embedding is not None:
            hidden_bth = self.embedding(ids_bt[:, :-1])
        assert hidden_bth is not None, "only the first stage starts from ids"
        positions = torch.arange(hidden_bth.shape[1], device=hidden_bth.device).unsqueeze(0)
        rotary = self.rotary(hidden_bth, position_ids=positions)
        for layer in self.layers:
            hidden_bth = layer(hidden_bth, position_embeddings=rotary, position_ids=positions)
        if self.head is None or self.norm is None:
            return hidden_bth
        logits_btv = self.head(self.norm(hidden_bth))
        return nn.functional.cross_entropy(
            logits_btv.flatten(0, 1).float(), ids_bt[:, 1:].flatten()
        )


def stages(llm: LlamaShape, net: Any, *, num_stages: int) -> list[nn.Module]:
    """Return the net's stages in order; they share its parameters."""
    ends = layer_ends(llm, num_stages=num_stages)
    starts = [0, *ends[:-1]]
    return [
        LlamaStage(net, first=first, last=last, is_final=last == llm.layers)
        for first, last in zip(starts, ends, strict=True)
    ]


def layer_ends(llm: LlamaShape, *, num_stages: int) -> list[int]:
    """Return the layer after the last one of each stage; every stage has at least one layer.

    A layer costs its matrices and attention, the head the vocabulary's matrix (`_llm.cost`).
    """
    layer_cost = 2 * layer_matrix_parameters(llm) + 4 * llm.hidden * llm.sequence_tokens
    head_layers = 2 * llm.hidden * llm.vocab / layer_cost
    others = num_stages - 1

    def slowest(at_end: int) -> float:
        before = -(-(llm.layers - at_end) // others) if others else 0
        return max(float(before), at_end + head_layers)

    at_end = min(range(1, llm.layers - others + 1), key=slowest) if others else llm.layers
    even, extra = divmod(llm.layers - at_end, max(others, 1))
    ends = [even * (index + 1) + min(index + 1, extra) for index in range(others)]
    return [*ends, llm.layers]
