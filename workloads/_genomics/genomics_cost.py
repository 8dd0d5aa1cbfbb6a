"""What an ESM costs, by formula: parameters, FLOPs, traffic and peak of memory. Torch-free.

Letters: L layers, D hidden, F intermediate, N tokens of a window, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

from bench.core.errors import UsageError
from bench.core.nouns import DTYPE_BYTES, Dtype
from bench.workload import RESIDENT_BATCHES, Phase
from workloads._costs.transformer_cost import (
    layer_flops,
    layer_norm_parameters,
    layer_weights,
    linear_parameters,
    projection_flops,
)

NUM_SPECIAL = 4
"""Ids before the first k-mer: unknown, padding, mask and start, in the order of the published
tokenizer (huggingface.co/InstaDeepAI/nucleotide-transformer-500m-human-ref, vocab.txt)."""
MASKED_FRAC = 0.15
"""Share of a window's tokens that are predicted (https://arxiv.org/abs/1810.04805 section 3.1)."""
STATE_BYTES = 16
"""Of a trained parameter: weight, gradient and both AdamW moments in fp32."""
FP32_BYTES, ID_BYTES = 4, 8


@dataclass(frozen=True, kw_only=True)
class EsmShape:
    """What fixes the cost. Defaults: the Nucleotide Transformer's 500 M parameters."""

    batch: int = 8
    layers: int = 24
    hidden: int = 1280
    heads: int = 20
    intermediate: int = 5120
    kmer: int = 6
    """Bases of one token."""
    vocab: int = 4105
    """Token ids: 4 special ones, then 4**kmer; ids after them stay unused."""
    window_tokens: int = 1000
    is_tied: bool = True
    """The embedding and the head share one matrix."""
    is_rotary: bool = False
    """Positions turn queries and keys; else they are learned vectors, as in the published net."""

    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("batch", "layers", "hidden", "heads", "intermediate", "kmer"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.window_tokens < 4:
            raise UsageError(f"window_tokens must be at least 4, not {self.window_tokens}")
        if self.kmer > 8:
            raise UsageError(f"kmer must be at most 8, not {self.kmer}: 4**kmer ids are needed")
        if self.vocab < (fewest := NUM_SPECIAL + 4**self.kmer):
            raise UsageError(f"vocab must be at least {fewest} for kmer {self.kmer}: {self.vocab}")
        if self.hidden % (2 * self.heads):
            raise UsageError(
                f"hidden {self.hidden} must be a multiple of 2 * heads = {2 * self.heads}: "
                "positions turn pairs of a head's elements"
            )
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be greater than 0, not {self.learning_rate}")

    @property
    def num_masked(self) -> int:
        """Tokens of one window that are predicted."""
        return max(1, round(MASKED_FRAC * self.window_tokens))

    @property
    def window_bases(self) -> int:
        """Bases of one window."""
        return self.window_tokens * self.kmer

    @property
    def num_positions(self) -> int:
        """Learned positions: padding's and one before it are never used."""
        return 0 if self.is_rotary else self.window_tokens + 2

    def num_parameters(self) -> int:
        """All: embeddings, layers with biases and two norms, the last norm, and the head."""
        width = self.hidden
        biases = 5 * width + self.intermediate
        layer = layer_weights(width, feedforward=self.intermediate) + biases
        layers = self.layers * (layer + 2 * layer_norm_parameters(width))
        embeddings = (self.vocab + self.num_positions) * width
        head = linear_parameters(width, outputs=width) + layer_norm_parameters(width)
        words = 0 if self.is_tied else self.vocab * width
        return embeddings + layers + layer_norm_parameters(width) + head + words + self.vocab

    def _window_flops(self) -> float:
        width, tokens = self.hidden, self.window_tokens
        layer = layer_flops(width, feedforward=self.intermediate, tokens=tokens)
        head = projection_flops(width * (width + self.vocab), tokens=tokens)
        return self.layers * layer + head

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """FLOPs of a trained token, or of a variant: two windows. A backward is two forwards."""
        window = self._window_flops()
        return 3 * window / self.window_tokens if phase.is_training else 2 * window

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float:
        """Least traffic: weights once a pass; in training also gradients and optimizer in fp32."""
        weights = self.num_parameters() * dtype_bytes
        if not phase.is_training:
            return weights / self.batch
        state = (2 + 3 * 2) * 4 * self.num_parameters()
        return (2 * weights + state) / (self.batch * self.window_tokens)

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Peak of one step, with flash attention; fitted to measured peaks, and errs high.

        train: weights and state, autocast's copies, what backward needs of every layer, and the
        loss with logits in both precisions. score: weights, the batches kept ready, and of both
        windows a layer at work or two copies of the logits. Rotary positions are made in fp32.
        """
        width = DTYPE_BYTES[dtype]
        is_cast = width < FP32_BYTES
        if phase.is_training:
            state = self.num_parameters() * (STATE_BYTES + (width if is_cast else 0))
            norms = 4 * self.hidden * FP32_BYTES
            layer = norms + (9 * self.hidden + 5 * self.intermediate) * width
            loss = self.vocab * (3 * FP32_BYTES + (2 * width if is_cast else 0))
            token = self.layers * layer + loss
            return state + self.batch * self.window_tokens * token
        feedforward, rotary = 4 * self.intermediate * width, 6 * self.hidden * FP32_BYTES
        at_work = max(feedforward, rotary, 2 * self.vocab * width) + 6 * self.hidden * width
        token = at_work + RESIDENT_BATCHES * ID_BYTES
        return self.num_parameters() * width + 2 * self.batch * self.window_tokens * token
