"""A Llama trained and served: `llm-train`, `llm-prefill` and `llm-decode`.

The net is a config-built Llama of Hugging Face transformers with random weights; text comes from a
seeded Markov source or, with --data FILE, from a file through a byte-level tokenizer. Prefill is
the time to first token; decode the time per token after it, always from the same context. Left out:
batching of requests that come and go, sampling, and trained weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.core.errors import UsageError, one_of
from bench.workload import Phase, TensorPlan
from workloads._llm_language import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Workload(LanguageModel):
    """The defaults are Llama 3.2 1B (huggingface.co/meta-llama/Llama-3.2-1B, config.json)."""

    summary = "Llama language model: training step, prompt prefill, token-by-token decode"
    libraries = ("transformers.models.llama",)
    max_grad_norm = 1.0
    sizes = {
        "tiny": dict(batch=8, layers=2, hidden=64, heads=4, kv_heads=2, intermediate=176, vocab=256,
                     sequence_tokens=64, prompt_tokens=64, new_tokens=8, learning_rate=3e-3),
        "small": dict(batch=4, layers=6, hidden=256, heads=8, kv_heads=8, intermediate=688,
                      vocab=4096, sequence_tokens=256, prompt_tokens=256, new_tokens=32,
                      learning_rate=1e-3),
        # Width, depth and context of GPT-2 small (huggingface.co/openai-community/gpt2,
        # config.json), its 50,257 tokens rounded up to a multiple of 128 for the matrix units.
        "base": dict(batch=8, layers=12, hidden=768, heads=12, kv_heads=12, intermediate=2048,
                     vocab=50_304, sequence_tokens=1024, prompt_tokens=1024),
        "large": {},
    }  # fmt: skip

    batch: int = 4
    layers: int = 16
    hidden: int = 2048
    heads: int = 32
    kv_heads: int = 8
    intermediate: int = 8192
    vocab: int = 128_256
    sequence_tokens: int = 2048
    prompt_tokens: int = 2048
    new_tokens: int = 64
    cache: str = "auto"
    """Key/value cache of decode; auto: static on accelerators and when compiled, else dynamic."""
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be built."""
        super().__post_init__()
        if self.learning_rate <= 0:
            raise UsageError(f"learning_rate must be greater than 0, not {self.learning_rate}")
        if self.cache not in ("auto", "static", "dynamic"):
            raise one_of("cache", self.cache, ["auto", "static", "dynamic"])

    def build_net(self) -> Any:
        """Return a Llama with random weights."""
        from workloads._llm_net import build

        return build(self)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the mean cross-entropy of the next token, in nats."""
        from workloads._llm_net import causal_loss

        return causal_loss(net, batch)

    def optimizer(self, net: Any) -> Any:
        """Return the AdamW that Llama was trained with (arxiv.org/abs/2302.13971 section 2.2)."""
        from torch.optim import AdamW

        matrices = {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1}
        norms = {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.0}
        return AdamW([matrices, norms], lr=self.learning_rate, betas=(0.9, 0.95))

    def tensor_parallel_plan(self, phase: Phase) -> TensorPlan:
        """Cut heads, the width of the MLP and the vocabulary, as Megatron-LM does."""
        from workloads._llm_parallel import tensor_plan

        return tensor_plan(self, is_training=phase.is_training)

    def check_stages(self, num_stages: int) -> None:
        """Refuse more pipeline stages than layers."""
        if not 1 <= num_stages <= self.layers:
            raise UsageError(
                f"{self.layers} layers cannot be cut into {num_stages} pipeline stages; "
                f"use at most {self.layers} (--pp times the schedule's chunks)"
            )

    def pipeline_stages(self, net: Any, *, num_stages: int) -> Any:
        """Return runs of layers; embedding in the first, norm, head and loss in the last."""
        from workloads._llm_stages import stages

        return stages(self, net, num_stages=num_stages)

    def prefill(self, net: Any, batch: Any) -> Any:
        """Read the prompts into a fresh cache; logits after their last position, (B, V)."""
        from workloads._llm_decode import growing_cache, prefill

        return prefill(net, batch, cache=growing_cache(layers=self.layers))

    def prepare(self, phase: Phase, net: Any, batch: Any) -> Any:
        """Fill the cache for decode."""
        from workloads._llm_decode import read_prompt

        if phase.name != "decode":
            return batch
        return read_prompt(self, net, batch)

    def decode(self, net: Any, batch: Any) -> dict[str, Any]:
        """Generate tokens one after the other: ids (B, N), first and last logits (B, V)."""
        from workloads._llm_decode import generate

        return generate(net, batch)
