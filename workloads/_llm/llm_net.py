"""Builds the Llama of transformers, its loss, and its pipeline stages.

Two habits of transformers would be measured or get in the way, and are avoided through what it
offers for that. Its mask builder reads a tensor back to the host in every training step, and under
torch.compile always makes a mask, which keeps the flash kernel out: an attention registered without
a mask function gets no mask and is causal by itself. And casting the net to 16 bits casts the
rotary frequencies with it, which turns far positions by radians: they are made anew in fp32.
Heads that share keys and values are repeated where fp32 would else leave only the kernel that
stores the whole attention matrix.

A prompt is read once, before timing; every step rewinds the cache to it and generates the same
number of tokens, so all steps do the same work. The first token comes from the text, not from the
prompt's logits, so that what it leads to can be compared between devices.
Shapes: B batch, P prompt, N new tokens, S = P + N, V vocabulary.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer
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
    return _cross_entropy(logits, ids_bt)


def _cross_entropy(logits_btv: torch.Tensor, ids_bt: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits_btv.flatten(0, 1).float(), ids_bt[:, 1:].flatten())


# Pipeline stages -------------------------------------------------------------------------------


class LlamaStage(nn.Module):
    """Some layers of a Llama, with what comes before the first and after the last.

    Letters: B batch, T tokens, H hidden, V vocabulary.
    """

    def __init__(self, net: Any, *, first: int, last: int) -> None:
        super().__init__()
        is_final = last == len(net.model.layers)
        self.embedding = net.model.embed_tokens if first == 0 else None
        self.layers = net.model.layers[first:last]
        self.rotary = net.model.rotary_emb
        self.final = nn.Sequential(net.model.norm, net.lm_head) if is_final else None

    def forward(self, hidden_bth: torch.Tensor | None, ids_bt: torch.Tensor) -> torch.Tensor:
        """Return hidden states (B, T, H), or the final stage's loss; ids hold T + 1 tokens."""
        if self.embedding is not None:
            hidden_bth = self.embedding(ids_bt[:, :-1])
        assert hidden_bth is not None, "only the first stage starts from ids"
        positions = torch.arange(hidden_bth.shape[1], device=hidden_bth.device).unsqueeze(0)
        rotary = self.rotary(hidden_bth, position_ids=positions)
        for layer in self.layers:
            hidden_bth = layer(hidden_bth, position_embeddings=rotary, position_ids=positions)
        return hidden_bth if self.final is None else _cross_entropy(self.final(hidden_bth), ids_bt)


def stages(llm: LlamaShape, net: Any, *, num_stages: int) -> list[nn.Module]:
    """Return the net's stages in order; they share its parameters, tied embeddings included."""
    ends = layer_ends(llm, num_stages=num_stages)
    return [LlamaStage(net, first=first, last=last) for first, last in pairwise([0, *ends])]


def layer_ends(llm: LlamaShape, *, num_stages: int) -> list[int]:
    """Return the layer after the last one of each stage; every stage has at least one layer.

    The slowest stage is as fast as can be. A layer costs its matrices and attention, the head the
    vocabulary's matrix (`llm_cost`): of a large vocabulary it is worth several layers.
    """
    layer_cost = 2 * llm.layer_matrix_parameters() + 4 * llm.hidden * llm.sequence_tokens
    head_layers = 2 * llm.hidden * llm.vocab / layer_cost
    others = num_stages - 1
    if not others:
        return [llm.layers]

    def sizes(at_end: int) -> list[int]:
        even, extra = divmod(llm.layers - at_end, others)
        return [even + (index < extra) for index in range(others)] + [at_end]

    def slowest(at_end: int) -> float:
        return max(sizes(at_end)[0], at_end + head_layers)

    return list(accumulate(sizes(min(range(1, llm.layers - others + 1), key=slowest))))


# Caches ----------------------------------------------------------------------------------------


class _OfOneDtype:
    """Keeps keys in the dtype of values: under autocast the rotary embedding leaves fp32."""

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().update(keys.to(values.dtype), values, *args, **kwargs)  # type: ignore[misc]


class _GrowingLayer(_OfOneDtype, DynamicLayer):  # type: ignore[misc]
    """Keys and values that grow by concatenation."""


class _FixedLayer(_OfOneDtype, StaticLayer):  # type: ignore[misc]
    """Keys and values in buffers of full length, written in place: no shape ever changes."""

    def __init__(self, source: DynamicLayer, *, length: int) -> None:
        super().__init__(max_cache_len=length)
        # The base class would also mark the buffers' addresses for torch.compile, which then
        # compiles anew for every cache; the harness keeps several.
        self.dtype, self.device = source.dtype, source.device
        self.cumulative_length = torch.tensor(0, device=self.device)
        unused = (0, 0, 0, length - source.keys.shape[2])
        self.keys = nn.functional.pad(source.keys, unused)
        self.values = nn.functional.pad(source.values, unused)
        self.is_initialized = True


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Prompts that have been read, and everything the token loop needs on the device."""

    cache: Cache
    length: int
    first_token: torch.Tensor
    """(B, 1)"""
    positions: tuple[torch.Tensor, ...]
    """Position of each new token, N of (1, 1)."""
    masks: tuple[torch.Tensor | None, ...]
    """What each new token may see of a fixed cache, N of (B, 1, 1, S); None: all there is."""


def prefill(llm: LlamaShape, net: nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, Cache]:
    """Return the logits of the prompts' last position, (B, V), and the cache that they fill."""
    cache = Cache(layers=[_GrowingLayer() for _ in range(llm.layers)])
    return _last_logits(net, ids, cache=cache), cache


def _last_logits(net: nn.Module, ids: torch.Tensor, *, cache: Cache, **flags: Any) -> torch.Tensor:
    output = net(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **flags)
    return output.logits[:, -1]  # type: ignore[no-any-return]


def read_prompt(llm: LlamaShape, net: nn.Module, ids: torch.Tensor, *, kind: str) -> Prompt:
    """Fill a cache with all but the last of `ids`, (B, P + 1), which becomes the first token.

    `kind` of cache is static, dynamic or auto.
    The net runs eagerly even if it is compiled: only the token loop is measured.
    """
    length, new = llm.prompt_tokens, llm.new_tokens
    with torch.compiler.set_stance("force_eager"):
        _, cache = prefill(llm, net, ids[:, :length])
    positions = torch.arange(length, length + new, device=ids.device).view(new, 1, 1)
    masks: tuple[torch.Tensor | None, ...] = (None,) * new
    is_compiled = hasattr(net, "_orig_mod") or getattr(net, "_compiled_call_impl", None) is not None
    # Fixed shapes save an accelerator's allocator and a compiler's recompiles; an eager CPU would
    # only attend to the padding.
    gains = kind == "auto" and (is_compiled or ids.device.type != "cpu")
    if kind == "static" or gains:
        cache = Cache(layers=[_FixedLayer(one, length=length + new) for one in cache.layers])
        visible = torch.arange(length + new, device=ids.device) <= positions
        masks = visible[:, None, None].repeat(1, len(ids), 1, 1, 1).unbind(0)
    return Prompt(
        cache=cache,
        length=length,
        first_token=ids[:, length:].contiguous(),
        positions=positions.unbind(0),
        masks=masks,
    )


def generate(net: nn.Module, prompt: Prompt) -> dict[str, torch.Tensor]:
    """Greedily generate N tokens after the prompts: ids (B, N), first and last logits (B, V)."""
    for layer in prompt.cache.layers:  # forget the new tokens of the step before
        if isinstance(layer, StaticLayer):
            layer.cumulative_length.fill_(prompt.length)
        elif (surplus := layer.get_seq_length() - prompt.length) > 0:
            layer.crop(-surplus)
    tokens = [prompt.first_token]
    logits: list[torch.Tensor] = []
    for position, mask in zip(prompt.positions, prompt.masks, strict=True):
        where: dict[str, Any] = {"attention_mask": mask, "position_ids": position}
        last = _last_logits(net, tokens[-1], cache=prompt.cache, **where)
        logits = [*logits[:1], last]
        tokens.append(last.argmax(-1, keepdim=True))
    return {"ids": torch.cat(tokens[1:], dim=1), "first_logits": logits[0], "logits": logits[-1]}
