"""Reading prompts and generating tokens with the key/value caches of transformers.

A prompt is read once, before timing; every step rewinds the cache to it and generates the same
number of tokens, so all steps do the same work. The first token comes from the text, not from the
prompt's logits, so that what it leads to can be compared between devices.

Shapes: B batch, P prompt, N new tokens, S = P + N, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

from workloads._llm.llm_cost import LlamaShape


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values that grow by concatenation, both in the value's dtype.

    Under autocast the rotary embedding leaves keys in fp32.
    """

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().update(keys.to(values.dtype), values, *args, **kwargs)


class _FixedLayer(StaticLayer):  # type: ignore[misc]
    """Keys and values in buffers of full length, written in place: no shape ever changes."""

    cumulative_length: torch.Tensor

    def lazy_initialization(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        # The base class also marks the buffers' addresses for torch.compile, which then compiles
        # anew for every cache; the harness keeps several.
        self.dtype, self.device = values.dtype, values.device
        self.batch_size, self.num_heads = values.shape[:2]
        self.keys = keys.new_zeros(*keys.shape[:2], self.max_cache_len, keys.shape[-1])
        self.values = values.new_zeros(*values.shape[:2], self.max_cache_len, values.shape[-1])
        self.cumulative_length = self.cumulative_length.to(self.device)
        self.is_initialized = True

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().update(keys.to(values.dtype), values, *args, **kwargs)


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

    def rewind(self) -> None:
        """Forget the new tokens of the step before."""
        for layer in self.cache.layers:
            if isinstance(layer, StaticLayer):
                layer.cumulative_length.fill_(self.length)
            elif (surplus := layer.get_seq_length() - self.length) > 0:
                layer.crop(-surplus)


def growing_cache(*, layers: int) -> Cache:
    """Return an empty cache that grows."""
    return Cache(layers=[_GrowingLayer() for _ in range(layers)])


def prefill(net: nn.Module, ids: torch.Tensor, *, cache: Cache) -> Any:
    """Fill the cache with the prompts; return the logits of their last position, (B, V)."""
    output = net(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return output.logits[:, -1]


def read_prompt(llm: LlamaShape, net: nn.Module, ids: torch.Tensor, *, kind: str) -> Prompt:
    """Fill a cache with all but the last of `ids`, (B, P + 1), which becomes the first token.

    `kind` of cache is static, dynamic or auto.
    The net runs eagerly even if it is compiled: only the token loop is measured.
    """
    length, new = llm.prompt_tokens, llm.new_tokens
    cache = growing_cache(layers=llm.layers)
    with torch.compiler.set_stance("force_eager"):
        prefill(net, ids[:, :length], cache=cache)
    positions = torch.arange(length, length + new, device=ids.device).view(new, 1, 1)
    masks: tuple[torch.Tensor | None, ...] = (None,) * new
    if kind == "static" or (kind == "auto" and _gains_from_static(net, ids.device)):
        cache = _fixed_copy(cache, length=length + new)
        visible = torch.arange(length + new, device=ids.device) <= positions
        masks = visible[:, None, None].repeat(1, len(ids), 1, 1, 1).unbind(0)
    return Prompt(
        cache=cache,
        length=length,
        first_token=ids[:, length:].contiguous(),
        positions=positions.unbind(0),
        masks=masks,
    )


def _gains_from_static(net: nn.Module, device: torch.device) -> bool:
    """Whether fixed shapes pay: they save an accelerator's allocator and a compiler's recompiles.

    An eager CPU only pays for them, by attending to the padding.
    """
    is_compiled = hasattr(net, "_orig_mod") or getattr(net, "_compiled_call_impl", None) is not None
    return is_compiled or device.type != "cpu"


def _fixed_copy(cache: Cache, *, length: int) -> Cache:
    layers = []
    for source in cache.layers:
        layer = _FixedLayer(max_cache_len=length)
        layer.update(source.keys, source.values)
        layers.append(layer)
    return Cache(layers=layers)


def generate(net: nn.Module, prompt: Prompt) -> dict[str, torch.Tensor]:
    """Greedily generate N tokens after the prompts: ids (B, N), first and last logits (B, V)."""
    prompt.rewind()
    token = prompt.first_token
    logits: list[torch.Tensor] = []
    tokens: list[torch.Tensor] = []
    for position, mask in zip(prompt.positions, prompt.masks, strict=True):
        output = net(
            input_ids=token,
            attention_mask=mask,
            position_ids=position,
            past_key_values=prompt.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        last = output.logits[:, -1]
        token = last.argmax(-1, keepdim=True)
        logits = [*logits[:1], last]
        tokens.append(token)
    return {"ids": torch.cat(tokens, dim=1), "first_logits": logits[0], "logits": logits[-1]}
