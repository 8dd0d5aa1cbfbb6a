"""What a Llama costs, by formula: parameters, FLOPs, traffic and peak of memory. Torch-free.

A multiply-add is 2 FLOP. FLOPs are the model's, as a matrix product counts them: attention is
counted in full (a causal kernel that skips the masked half is credited with the whole, as
FlopCounterMode and PaLM do, https://arxiv.org/abs/2204.02311 appendix B); recomputation inside a
flash-attention backward and the padding of a static key/value cache are not counted. Norms, rotary
embedding, softmax and optimizer are left out, because none of them is a matrix product.

The estimate of peak memory only has to choose which named size fits, so it errs high; the
allocator's and the driver's own share are left out. Attention is assumed not to keep its matrix
(flash or memory-efficient kernels, which scaled_dot_product_attention picks on CPU, CUDA, ROCm and
XPU). What backward needs was counted with torch's saved-tensor hooks, and a test holds the formula
to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.core.nouns import Dtype

MASTER_WEIGHT_BYTES = 4
"""Training keeps weights, gradients and both AdamW moments in fp32, under autocast too."""
DTYPE_BYTES: dict[Dtype, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
RESIDENT_PROMPTS = 4
"""Prepared batches, each with its cache, that the harness keeps on the device."""


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """What fixes the cost of a Llama and of its steps."""

    batch: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    """Token ids; a byte is its own id, ids from 256 on stay unused."""
    is_tied: bool = True
    """The embedding and the output head share one matrix."""
    sequence_tokens: int
    """Tokens predicted in one training window."""
    prompt_tokens: int
    """Tokens read by prefill, and in the cache before decode."""
    new_tokens: int
    """Tokens that one decode step generates for each sequence of the batch."""


def kv_width(llm: LlamaShape) -> int:
    """Elements of one token's key (or value) in one layer."""
    return llm.kv_heads * (llm.hidden // llm.heads)


def layer_matrix_parameters(llm: LlamaShape) -> int:
    """Weights of one layer's matrices: q and o, k and v, then gate, up and down."""
    attention = 2 * llm.hidden * llm.hidden + 2 * llm.hidden * kv_width(llm)
    return attention + 3 * llm.hidden * llm.intermediate


def num_parameters(llm: LlamaShape) -> int:
    """All parameters: embedding, head, matrices, two norms for each layer and the last norm."""
    vocabulary = llm.vocab * llm.hidden * (1 if llm.is_tied else 2)
    layer = layer_matrix_parameters(llm) + 2 * llm.hidden
    return vocabulary + llm.layers * layer + llm.hidden


def forward_flops(llm: LlamaShape, *, tokens: int, pairs: float, logits: int) -> float:
    """FLOPs of one sequence's forward pass.

    `pairs` counts (query, key) pairs, each a dot product and a weighted sum over the hidden width;
    `logits` counts the positions whose next token is predicted.
    """
    matrices = 2 * llm.layers * layer_matrix_parameters(llm) * tokens
    attention = 4 * llm.layers * llm.hidden * pairs
    return matrices + attention + 2 * llm.hidden * llm.vocab * logits


def flops_per_token(llm: LlamaShape, *, phase: str) -> float:
    """Mean FLOPs of one token of a phase.

    train: forward, and a backward of twice that (one product per operand), of every position.
    prefill: the whole prompt, logits for its last position only, as a server does. decode: the
    j-th new token (from 1) attends to prompt + j keys.
    """
    sequence, prompt, new = llm.sequence_tokens, llm.prompt_tokens, llm.new_tokens
    if phase == "train":
        forward = forward_flops(llm, tokens=sequence, pairs=sequence**2, logits=sequence)
        return 3 * forward / sequence
    if phase == "prefill":
        return forward_flops(llm, tokens=prompt, pairs=prompt**2, logits=1) / prompt
    pairs = new * prompt + new * (new + 1) / 2
    return forward_flops(llm, tokens=new, pairs=pairs, logits=new) / new


def kv_bytes_per_token(llm: LlamaShape, *, dtype_bytes: int) -> int:
    """Key and value of one token in all layers."""
    return 2 * llm.layers * kv_width(llm) * dtype_bytes


def bytes_per_token(llm: LlamaShape, *, phase: str, dtype_bytes: int) -> float:
    """Least memory traffic of one token: what is shared by a step's tokens is divided by them.

    Every phase reads the weights (an untied embedding is read by row, so it is left out) once for
    each pass. train: forward and backward in the compute dtype, and in fp32 gradients written and
    read, weights and two moments read and written; activations can be recomputed, so they are no
    lower bound. prefill: keys and values written. decode: one pass for the batch's tokens at one
    position, the j-th new token (from 1) reads prompt + j - 1 cache entries and writes one.
    """
    embedding = 0 if llm.is_tied else llm.vocab * llm.hidden
    weights = (num_parameters(llm) - embedding) * dtype_bytes
    cache_entry = kv_bytes_per_token(llm, dtype_bytes=dtype_bytes)
    if phase == "train":
        state = (2 + 3 * 2) * MASTER_WEIGHT_BYTES * num_parameters(llm)
        return (2 * weights + state) / (llm.batch * llm.sequence_tokens)
    if phase == "prefill":
        return weights / (llm.batch * llm.prompt_tokens) + cache_entry
    return weights / llm.batch + (llm.prompt_tokens + (llm.new_tokens - 1) / 2 + 1) * cache_entry


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
