"""A Llama trained and served: `llm-train`, `llm-prefill`, `llm-decode` and `llm-serve`.

The net is a config-built Llama of Hugging Face transformers with random weights; text comes from a
seeded Markov source or, with --data FILE, from a file through a byte-level tokenizer. Prefill is
the time to first token; decode the time per token after it, always from the same context; serve is
requests that come and go, batched by an engine. Left out: sampling, and trained weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.core.errors import UsageError, one_of
from bench.workload import Phase, ServingPlan, TensorPlan
from workloads._llm.llm_cost import LlamaShape

NUM_BYTES = 256

TRAIN = Phase(name="train", item="token", is_training=True)
PREFILL = Phase(name="prefill", item="token", latency="ttft")
DECODE = Phase(name="decode", item="token", latency="tpot")
SERVE = Phase(name="serve", item="token", is_served=True)

LAYER_STYLES = {
    "self_attn": "shared_input",
    "self_attn.q_proj": "colwise",
    "self_attn.k_proj": "colwise",
    "self_attn.v_proj": "colwise",
    "self_attn.o_proj": "rowwise",
    "mlp": "shared_input",
    "mlp.gate_proj": "colwise",
    "mlp.up_proj": "colwise",
    "mlp.down_proj": "rowwise",
}


def _net() -> Any:
    """Return the module that imports torch and transformers."""
    from workloads._llm import llm_net

    return llm_net


@dataclass(frozen=True, kw_only=True)
class Workload(LlamaShape, bench.workload.Workload):
    """A Llama of any shape; the defaults are Llama 3.2 1B."""

    summary = "Llama language model: training step, prompt prefill, token-by-token decode"
    domain = "language"
    phases = (TRAIN, PREFILL, DECODE, SERVE)
    accepts_data = "a text file"
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

    cache: str = "auto"
    """Key/value cache of decode; auto: static on accelerators and when compiled, else dynamic."""
    learning_rate: float = 3e-4
    cuda_graph: bool = False
    """Of the serving engine; without flash kernels a graph's padding costs more than it saves."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int and name != "vocab" and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.vocab < NUM_BYTES:
            raise UsageError(f"vocab must be at least {NUM_BYTES}, one id a byte, not {self.vocab}")
        if self.heads % self.kv_heads:
            raise UsageError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.hidden % (2 * self.heads):
            raise UsageError(
                f"hidden {self.hidden} must be a multiple of 2 * heads = {2 * self.heads}: "
                "the rotary embedding pairs the elements of a head"
            )
        if self.learning_rate <= 0:
            raise UsageError(f"learning_rate must be greater than 0, not {self.learning_rate}")
        if self.cache not in ("auto", "static", "dynamic"):
            raise one_of("cache", self.cache, ["auto", "static", "dynamic"])

    def build_net(self) -> Any:
        """Return a Llama with random weights."""
        return _net().build(self)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the mean cross-entropy of the next token, in nats."""
        return _net().causal_loss(net, batch)

    def optimizer(self, net: Any) -> Any:
        """Return the AdamW that Llama was trained with (arxiv.org/abs/2302.13971 section 2.2)."""
        from torch.optim import AdamW

        matrices = {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1}
        norms = {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.0}
        return AdamW([matrices, norms], lr=self.learning_rate, betas=(0.9, 0.95))

    def tensor_parallel_plan(self, phase: Phase) -> TensorPlan:
        """Cut heads, the MLP's width and the vocabulary: two all-reduces a layer and direction.

        As Megatron-LM (https://arxiv.org/abs/1909.08053 section 3). The plan of transformers
        gathers the logits, in training a far larger message than all the rest; here the loss is
        computed on the cut logits, but generation needs those of all tokens on every device. Left
        out: sequence parallelism, whose bytes are equal.
        """
        head = "colwise_logits" if phase.is_training else "colwise_gather_output"
        styles = {"model.embed_tokens": "embedding_rowwise", "lm_head": head}
        styles |= {f"model.layers.*.{name}": style for name, style in LAYER_STYLES.items()}
        names = ("heads", "kv_heads", "intermediate", "vocab")
        return TensorPlan(styles=styles, divides={name: getattr(self, name) for name in names})

    def check_stages(self, num_stages: int) -> None:
        """Refuse more pipeline stages than layers."""
        if not 1 <= num_stages <= self.layers:
            raise UsageError(
                f"{self.layers} layers cannot be cut into {num_stages} pipeline stages; "
                f"use at most {self.layers} (--pp times the schedule's chunks)"
            )

    def pipeline_stages(self, net: Any, *, num_stages: int) -> Any:
        """Return runs of layers; embedding in the first, norm, head and loss in the last."""
        return _net().stages(self, net, num_stages=num_stages)

    def prefill(self, net: Any, batch: Any) -> Any:
        """Read the prompts into a fresh cache; logits after their last position, (B, V)."""
        return _net().prefill(self, net, batch)[0]

    def prepare(self, phase: Phase, net: Any, batch: Any) -> Any:
        """Fill the cache for decode."""
        is_decode = phase.name == DECODE.name
        return _net().read_prompt(self, net, batch, kind=self.cache) if is_decode else batch

    def decode(self, net: Any, batch: Any) -> Any:
        """Generate tokens one after the other: ids (B, N), first and last logits (B, V)."""
        return _net().generate(net, batch)

    def serve(self, net: Any, batch: Any) -> Any:
        """Read prompts and answer them, a batch by itself: what an engine's answers are held to."""
        return _net().generate(net, _net().read_prompt(self, net, batch, kind="dynamic"))

    def serving_plan(self) -> ServingPlan:
        """Return how many tokens and requests the engine takes together."""
        return ServingPlan(
            max_batch_tokens=self.max_batch_tokens,
            max_requests=self.max_requests,
            use_cuda_graph=self.cuda_graph,
        )

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return windows of token ids; a window holds one token more than is counted.

        Training shifts it into inputs and targets, decode starts from it; prefill has no use of it.
        """
        from workloads._llm.text import FileWindows, MarkovWindows

        counted = self.sequence_tokens if phase.is_training else self.prompt_tokens
        length = counted if phase.name == PREFILL.name else counted + 1
        if data is None:
            return MarkovWindows(length=length, seed=seed)
        return FileWindows(data, length=length, seed=seed)

    def check_data(self, data: Path) -> None:
        """Refuse a file that cannot fill a batch with different windows."""
        from workloads._llm.text import check_file

        longest = max(self.sequence_tokens, self.prompt_tokens) + 1
        check_file(data, fewest_bytes=longest + self.batch - 1)

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the tokens of one step: predicted, read, or generated."""
        sequences = self.batch if batch is None else int(batch.shape[0])
        read = self.sequence_tokens if phase.is_training else self.prompt_tokens
        return sequences * (self.new_tokens if phase in (DECODE, SERVE) else read)

    def comparable(self, phase: Phase, output: Any) -> Any:
        """Return decode's first logits: rounding may flip a greedy token and all that follow it."""
        return output["first_logits"] if phase in (DECODE, SERVE) else output

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse values that are not finite and ids outside the vocabulary."""
        import torch

        parts = output if isinstance(output, dict) else {"output": torch.as_tensor(output)}
        for name, tensor in parts.items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name} is not finite")
            if name == "ids" and not ((tensor >= 0) & (tensor < self.vocab)).all():
                raise ValueError(f"{name} holds token ids outside 0 to {self.vocab - 1}")
