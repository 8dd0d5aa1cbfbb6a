"""Builds the Llama of transformers and its loss.

Two habits of transformers would be measured or get in the way, and are avoided through what it
offers for that. Its mask builder reads a tensor back to the host in every training step, and under
torch.compile always makes a mask, which keeps the flash kernel out: an attention registered without
a mask function gets no mask and is causal by itself. And casting the net to 16 bits casts the
rotary frequencies with it, which turns far positions by radians: they are made anew in fp32.
Heads that share keys and values are repeated where fp32 would else leave only the kernel that
stores the whole attention matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.models.llama import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from workloads._llm.llm_cost import LlamaShape

ATTENTION = "sdpa_without_mask"
# Llama 3 (https://arxiv.org/abs/2407.21783, table 3); the value does not change the cost.
ROPE_THETA = 500_000.0


# Whatever `sdpa_attention_forward` asks of the layer that it is called for, this is not grouped.
_UNGROUPED = nn.Module()


def has_grouped_kernel(value: torch.Tensor) -> bool:
    """Whether a kernel that never stores the attention matrix takes fewer key than query heads.

    On accelerators only flash attention does, and only in 16 bits; on the CPU in every dtype. The
    value's dtype is the computing one: autocast leaves rotated queries and keys in fp32.
    """
    return value.device.type == "cpu" or value.dtype.itemsize < 4


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> Any:
    """Attend as transformers does; repeat keys and values where no kernel takes them grouped."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and not has_grouped_kernel(value):
        module, key, value = _UNGROUPED, repeat_kv(key, groups), repeat_kv(value, groups)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


class _ExactRotaryEmbedding(LlamaRotaryEmbedding):  # type: ignore[misc]
    """Rotary frequencies that stay fp32 when the net is cast."""

    inv_freq: torch.Tensor

    def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        exact, _ = self.compute_default_rope_parameters(self.config)
        self.inv_freq = exact.to(self.inv_freq.device)
        return self


def build(llm: LlamaShape) -> nn.Module:
    """Return the net with random weights."""
    AttentionInterface.register(ATTENTION, attention)
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


def check(output: Any, *, vocab: int) -> None:
    """Raise ValueError unless every float is finite and every id is in the vocabulary."""
    parts = output if isinstance(output, dict) else {"output": torch.as_tensor(output)}
    for name, tensor in parts.items():
        if tensor.is_floating_point():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} is not finite")
        elif not bool(((tensor >= 0) & (tensor < vocab)).all()):
            raise ValueError(f"{name} holds token ids outside 0 to {vocab - 1}")
