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

from dataclasses import dataclass
from typing import Any

from bench.core.nouns import DTYPE_BYTES, Dtype
from bench.workload import RESIDENT_BATCHES, Phase
from workloads._costs.transformer_cost import attention_flops, projection_flops

MASTER_WEIGHT_BYTES = 4
"""Training keeps weights, gradients and both AdamW moments in fp32, under autocast too."""


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """What fixes the cost. Defaults: Llama 3.2 1B (huggingface.co/meta-llama/Llama-3.2-1B)."""

    batch: int = 4
    layers: int = 16
    hidden: int = 2048
    heads: int = 32
    kv_heads: int = 8
    intermediate: int = 8192
    vocab: int = 128_256
    """Token ids; a byte is its own id, ids from 256 on stay unused."""
    is_tied: bool = True
    """The embedding and the output head share one matrix."""
    sequence_tokens: int = 2048
    """Tokens predicted in one training window."""
    prompt_tokens: int = 2048
    """Tokens read by prefill, and in the cache before decode."""
    new_tokens: int = 64
    """Tokens that one decode step generates for each sequence of the batch."""
    max_batch_tokens: int = 2048
    """Of the serving engine: tokens of all requests in one pass at most."""
    max_requests: int = 64
    """Of the serving engine: requests that are served at the same time at most."""

    @property
    def kv_width(self) -> int:
        """Elements of one token's key (or value) in one layer."""
        return self.kv_heads * (self.hidden // self.heads)

    def layer_matrix_parameters(self) -> int:
        """Weights of one layer's matrices: q and o, k and v, then gate, up and down."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_width
        return attention + 3 * self.hidden * self.intermediate

    def num_parameters(self) -> int:
        """All parameters: embedding, head, matrices, two norms for each layer and the last norm."""
        vocabulary = self.vocab * self.hidden * (1 if self.is_tied else 2)
        layer = self.layer_matrix_parameters() + 2 * self.hidden
        return vocabulary + self.layers * layer + self.hidden

    def _forward_flops(self, *, tokens: int, pairs: float, logits: int) -> float:
        """FLOPs of one sequence's forward pass.

        `pairs` counts (query, key) pairs; `logits` counts the positions whose next token is
        predicted.
        """
        matrices = projection_flops(self.layer_matrix_parameters(), tokens=tokens)
        attention = attention_flops(self.hidden, pairs=pairs)
        head = projection_flops(self.hidden * self.vocab, tokens=logits)
        return self.layers * (matrices + attention) + head

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """Mean FLOPs of one token of a phase.

        train: forward, and a backward of twice that (one product per operand), of every position.
        prefill: the whole prompt, logits for its last position only, as a server does. decode: the
        j-th new token (from 1) attends to prompt + j keys. serve: both, for each new token.
        """
        sequence, prompt, new = self.sequence_tokens, self.prompt_tokens, self.new_tokens
        if phase.is_training:
            forward = self._forward_flops(tokens=sequence, pairs=sequence**2, logits=sequence)
            return 3 * forward / sequence
        reading = self._forward_flops(tokens=prompt, pairs=prompt**2, logits=1)
        if phase.name == "prefill":
            return reading / prompt
        pairs = new * prompt + new * (new + 1) / 2
        generating = self._forward_flops(tokens=new, pairs=pairs, logits=new)
        return (generating + (reading if phase.is_served else 0)) / new

    def kv_bytes_per_token(self, *, dtype_bytes: int) -> int:
        """Key and value of one token in all layers."""
        return 2 * self.layers * self.kv_width * dtype_bytes

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float:
        """Least memory traffic of one token: what a step's tokens share is divided by them.

        Every phase reads the weights (an untied embedding is read by row, so it is left out) once
        for each pass. train: forward and backward in the compute dtype, and in fp32 gradients
        written and read, weights and two moments read and written; activations can be recomputed,
        so they are no lower bound. prefill: keys and values written. decode: one pass for the
        batch's tokens at one position, the j-th new token (from 1) reads prompt + j - 1 cache
        entries and writes one. serve: both, for each new token.
        """
        embedding = 0 if self.is_tied else self.vocab * self.hidden
        weights = (self.num_parameters() - embedding) * dtype_bytes
        cache_entry = self.kv_bytes_per_token(dtype_bytes=dtype_bytes)
        if phase.is_training:
            state = (2 + 3 * 2) * MASTER_WEIGHT_BYTES * self.num_parameters()
            return (2 * weights + state) / (self.batch * self.sequence_tokens)
        reading = weights / self.batch + self.prompt_tokens * cache_entry
        if phase.name == "prefill":
            return reading / self.prompt_tokens
        cached = self.prompt_tokens + (self.new_tokens - 1) / 2 + 1
        shared = reading / self.new_tokens if phase.is_served else 0
        return weights / self.batch + cached * cache_entry + shared

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Peak of one step of a phase.

        train: fp32 weights, gradients and two AdamW moments, autocast's copies, activations, loss.
        The loss holds each token's logits as computed and in fp32, their log-softmax, and gradients
        of both kinds of logits; in fp32 the two kinds are one tensor.
        Else weights in the compute dtype, prompt caches, one layer at work on a prompt, and the
        last logits. One more cache than are kept: a growing cache is copied when it grows, and a
        static one is filled from a growing one. serve: the engine's cache for all its requests, a
        full pass with its mask, and the logits of each request.
        """
        width = DTYPE_BYTES[dtype]
        layer_token_bytes = self.layer_token_bytes(dtype=dtype)
        if phase.is_training:
            is_cast = width < MASTER_WEIGHT_BYTES
            state = self.num_parameters() * (4 * MASTER_WEIGHT_BYTES + (width if is_cast else 0))
            loss = self.vocab * (3 * 4 + (2 * width if is_cast else 0))
            token_bytes = self.layers * layer_token_bytes + loss
            return state + self.batch * self.sequence_tokens * token_bytes
        if phase.is_served:
            cached = self.max_requests * (self.prompt_tokens + self.new_tokens)
            pass_token_bytes = layer_token_bytes + cached * width
            return (
                width * (self.num_parameters() + 2 * self.max_requests * self.vocab)
                + cached * self.kv_bytes_per_token(dtype_bytes=width)
                + self.max_batch_tokens * pass_token_bytes
            )
        num_caches = 1 + (1 if phase.name == "prefill" else RESIDENT_BATCHES)
        tokens = self.batch * (self.prompt_tokens + self.new_tokens)
        cache = tokens * self.kv_bytes_per_token(dtype_bytes=width)
        transient = self.batch * self.prompt_tokens * layer_token_bytes
        logits = 2 * self.batch * self.vocab * width
        return width * self.num_parameters() + num_caches * cache + transient + logits

    def layer_token_bytes(self, *, dtype: Dtype) -> int:
        """Bytes of one token's tensors in one layer that backward needs.

        In fp32 each norm's input and its normalised input. In the compute dtype query, attention
        output and both norms' outputs (and under autocast the other side of three casts), key and
        value, and gate, its activation, up and their product. In fp32 accelerators have no kernel
        for grouped heads, so key and value are repeated to the width of the query.
        """
        width = DTYPE_BYTES[dtype]
        hidden = (4 if width == 4 else 7) * self.hidden
        key_value = 2 * (self.hidden if width == 4 else self.kv_width)
        compute = hidden + key_value + 4 * self.intermediate
        return 4 * self.hidden * 4 + compute * width
