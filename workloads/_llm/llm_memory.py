"""Estimate of the peak device memory of a Llama, by formula. Torch-free.

It only has to choose which named size fits, so it errs high; the allocator's and the driver's own
share are left out. Attention is assumed not to keep its matrix (flash or memory-efficient kernels,
which scaled_dot_product_attention picks on CPU, CUDA, ROCm and XPU). What backward needs was
counted with torch's saved-tensor hooks, and a test holds the formula to them.
"""

from __future__ import annotations

from bench.core.nouns import Dtype
from workloads._llm.llm_cost import (
    MASTER_WEIGHT_BYTES,
    LlamaShape,
    kv_bytes_per_token,
    kv_width,
    num_parameters,
)

DTYPE_BYTES: dict[Dtype, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
RESIDENT_PROMPTS = 4
"""Prepared batches, each with its cache, that the harness keeps on the device."""


def peak_bytes(llm: LlamaShape, *, phase: str, dtype: Dtype) -> int:
    """Peak of one step of a phase."""
    if phase == "train":
        return _train_bytes(llm, dtype=dtype)
    caches = 1 if phase == "prefill" else RESIDENT_PROMPTS
    return _inference_bytes(llm, caches=caches, dtype=dtype)


def _train_bytes(llm: LlamaShape, *, dtype: Dtype) -> int:
    """fp32 weights, gradients and two AdamW moments, autocast's copies, activations, loss.

    The loss holds each token's logits as computed and in fp32, their log-softmax, and gradients of
    both kinds of logits; in fp32 the two kinds are one tensor.
    """
    width = DTYPE_BYTES[dtype]
    is_cast = width < MASTER_WEIGHT_BYTES
    state = num_parameters(llm) * (4 * MASTER_WEIGHT_BYTES + (width if is_cast else 0))
    loss = llm.vocab * (3 * 4 + (2 * width if is_cast else 0))
    activations = llm.layers * layer_token_bytes(llm, dtype=dtype)
    return state + llm.batch * llm.sequence_tokens * (activations + loss)


def _inference_bytes(llm: LlamaShape, *, caches: int, dtype: Dtype) -> int:
    """Weights in the compute dtype, prompt caches, one layer at work on a prompt, last logits.

    One more cache than are kept: a growing cache is copied when it grows, and a static one is
    filled from a growing one.
    """
    width = DTYPE_BYTES[dtype]
    tokens = llm.batch * (llm.prompt_tokens + llm.new_tokens)
    cache = tokens * kv_bytes_per_token(llm, dtype_bytes=width)
    transient = llm.batch * llm.prompt_tokens * layer_token_bytes(llm, dtype=dtype)
    logits = 2 * llm.batch * llm.vocab * width
    return width * num_parameters(llm) + (caches + 1) * cache + transient + logits


def layer_token_bytes(llm: LlamaShape, *, dtype: Dtype) -> int:
    """Bytes of one token's tensors in one layer that backward needs.

    In fp32 each norm's input and its normalised input. In the compute dtype query, attention output
    and both norms' outputs (and under autocast the other side of three casts), key and value, and
    gate, its activation, up and their product. In fp32 accelerators have no kernel for grouped
    heads, so key and value are repeated to the width of the query.
    """
    width = DTYPE_BYTES[dtype]
    hidden = (4 if width == 4 else 7) * llm.hidden
    key_value = 2 * (llm.hidden if width == 4 else kv_width(llm))
    compute = hidden + key_value + 4 * llm.intermediate
    return 4 * llm.hidden * 4 + compute * width
