"""Builds the Llama of transformers and its loss.

Two habits of transformers would be measured or get in the way, and are avoided through what it
offers for that. Its mask builder reads a tensor back to the host in every training step, and under
torch.compile always makes a mask, which keeps the flash kernel out: an attention registered without
a mask function gets no mask and is causal by itself. And casting the net to 16 bits casts the
rotary frequencies with it, which turns far positions by radians: they are made anew in fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

if TYPE_CHECKING:
    from workloads.llm import Workload

ATTENTION = "sdpa_without_mask"
# Llama 3 (https://arxiv.org/abs/2407.21783, table 3); the value does not change the cost.
ROPE_THETA = 500_000.0


class _ExactRotaryEmbedding(LlamaRotaryEmbedding):  # type: ignore[misc]
    """Rotary frequencies that stay fp32 when the net is cast."""

    inv_freq: torch.Tensor

    def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        exact, _ = self.compute_default_rope_parameters(self.config)
        self.inv_freq = exact.to(self.inv_freq.device)
        return self


def build(llm: Workload) -> nn.Module:
    """Return the net with random weights."""
    AttentionInterface.register(ATTENTION, sdpa_attention_forward)
    config = LlamaConfig(
        num_hidden_layers=llm.layers,
        hidden_size=llm.hidden,
        num_attention_heads=llm.heads,
        num_key_value_heads=llm.kv_heads,
        intermediate_size=llm.intermediate,
        vocab_size=llm.vocab,
        tie_word_embeddings=llm.is_tied,
        max_position_embeddings=max(llm.sequence_tokens, llm.prompt_tokens + llm.new_tokens),
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        attn_implementation=ATTENTION,
    )
    net = LlamaForCausalLM(config)
    net.model.rotary_emb = _ExactRotaryEmbedding(config)
    return net  # type: ignore[no-any-return]


def causal_loss(net: nn.Module, ids_bt: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats, in fp32, of every token of a window after its first."""
    logits = net(input_ids=ids_bt[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids_bt[:, 1:].flatten())
