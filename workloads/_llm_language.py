"""What every causal language model of this shape shares: text, counts, costs, checks.

`workloads/llm.py` says which net is run and how it is used. Torch comes in inside the methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.core.errors import UsageError
from bench.core.nouns import Dtype
from bench.workload import Phase
from workloads import _llm_cost, _llm_memory

NUM_BYTES = 256

TRAIN = Phase(name="train", item="token", is_training=True)
PREFILL = Phase(name="prefill", item="token", latency="ttft")
DECODE = Phase(name="decode", item="token", latency="tpot")


@dataclass(frozen=True, kw_only=True)
class LanguageModel(bench.workload.Workload):
    """A window of text is a sample, a token an item."""

    phases = (TRAIN, PREFILL, DECODE)
    accepts_data = "a text file"

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

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be built."""
        sizes = ("batch", "layers", "hidden", "heads", "kv_heads", "intermediate")
        for name in (*sizes, "sequence_tokens", "prompt_tokens", "new_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.vocab < NUM_BYTES:
            raise UsageError(f"vocab must be at least {NUM_BYTES}, one id a byte, not {self.vocab}")
        if self.heads % self.kv_heads:
            raise UsageError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.hidden % (2 * self.heads):
            raise UsageError(
                f"hidden {self.hidden} must be a multiple of 2 * heads = {2 * self.heads}: "
                "the rotary embedding pairs the elements of a head"
            )

    # Text ----------------------------------------------------------------------------------------

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return windows of token ids; a window holds one token more than is counted.

        Training shifts it into inputs and targets, decode starts from it; prefill has no use of it.
        """
        from workloads._text import windows

        counted = self.sequence_tokens if phase.is_training else self.prompt_tokens
        length = counted if phase.name == PREFILL.name else counted + 1
        return windows(data, length=length, seed=seed)

    def check_data(self, data: Path) -> None:
        """Refuse a file that cannot fill a batch with different windows."""
        from workloads._text import check_file

        longest = max(self.sequence_tokens, self.prompt_tokens) + 1
        check_file(data, fewest_bytes=longest + self.batch - 1)

    # What it amounts to --------------------------------------------------------------------------

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the tokens of one step: predicted, read, or generated."""
        sequences = self.batch if batch is None else int(batch.shape[0])
        tokens = {
            TRAIN.name: self.sequence_tokens,
            PREFILL.name: self.prompt_tokens,
            DECODE.name: self.new_tokens,
        }
        return sequences * tokens[phase.name]

    def num_parameters(self) -> int:
        """Return all parameters."""
        return _llm_cost.num_parameters(self)

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """Return the mean cost of one token."""
        return _llm_cost.flops_per_token(self, phase=phase.name)

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float:
        """Return the least memory traffic of one token."""
        return _llm_cost.bytes_per_token(self, phase=phase.name, dtype_bytes=dtype_bytes)

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return the estimated peak."""
        return _llm_memory.peak_bytes(self, phase=phase.name, dtype=dtype)

    # Whether it is right -------------------------------------------------------------------------

    def comparable(self, phase: Phase, output: Any) -> Any:
        """Return decode's first logits: rounding may flip a greedy token and all that follow it."""
        return output["first_logits"] if phase.name == DECODE.name else output

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse values that are not finite and ids outside the vocabulary."""
        from workloads._llm_quality import check

        check(output, vocab=self.vocab)

    def quality(self, net: Any, samples: Sequence[Any]) -> dict[str, float]:
        """Return the loss on `samples` and the loss of the best predictor that ignores context."""
        from workloads._llm_quality import quality

        return quality(net, samples, batch=self.batch)
