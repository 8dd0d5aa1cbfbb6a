"""A language model of DNA: `genomics-train` on masked tokens, `genomics-score` of variants.

The net is the architecture of the Nucleotide Transformer (doi.org/10.1038/s41592-024-02523-z) and
of ESM-2, of transformers, with random weights; a token is k bases. Without --data: a generated
genome. With it: a FASTA file, and for score the VCF beside it. Left out: alignment of reads, which
is dynamic programming and no net (`align`); vendors' figures of it say nothing about this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench.workload
from bench.workload import Phase, UsedData
from workloads._genomics.genomics_cost import EsmShape

TRAIN = Phase(name="train", item="token", element="base", is_training=True)
SCORE = Phase(name="score", item="variant", element="base")


def _net() -> Any:
    """Return the module that imports torch and transformers."""
    from workloads._genomics import genomics_net

    return genomics_net


@dataclass(frozen=True, kw_only=True)
class Workload(EsmShape, bench.workload.Workload):
    """An ESM of any shape; the defaults are the Nucleotide Transformer's 500 M parameters."""

    summary = "masked language model of DNA (Nucleotide Transformer), and scores of variants"
    domain = "medical"
    phases = (TRAIN, SCORE)
    accepts_data = "a FASTA file, with a VCF of the same name beside it for score"
    libraries = ("transformers.models.esm",)
    max_grad_norm = 1.0
    sizes = {
        "tiny": dict(batch=32, layers=2, hidden=64, heads=4, intermediate=128, kmer=2, vocab=21,
                     window_tokens=64, is_tied=False, is_rotary=True, learning_rate=3e-3),
        "small": dict(batch=16, layers=6, hidden=256, heads=8, intermediate=1024,
                      window_tokens=128, is_tied=False, is_rotary=True, learning_rate=1e-3),
        "base": {},
        "large": dict(batch=4, layers=32, hidden=2560, intermediate=10_240),
    }  # fmt: skip

    def build_net(self) -> Any:
        """Return the net with its head over the vocabulary."""
        return _net().build(self)

    def loss(self, net: Any, batch: Any) -> Any:
        """Return the mean cross-entropy of the chosen tokens, in nats."""
        return _net().masked_loss(net, batch)

    def optimizer(self, net: Any) -> Any:
        """Return AdamW."""
        from torch.optim import AdamW

        return AdamW(net.parameters(), lr=self.learning_rate)

    def score(self, net: Any, batch: Any) -> Any:
        """Return how much likelier the alternative is than the reference, in nats, (B,)."""
        return _net().score(net, batch)

    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return masked windows, or pairs of windows that differ in one base."""
        from workloads._genomics import genomics_data

        return genomics_data.samples(self, is_training=phase.is_training, data=data, seed=seed)

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the tokens read, masked or not, or the variants."""
        samples = self.batch if batch is None else len(next(iter(batch.values())))
        return samples * (self.window_tokens if phase.is_training else 1)

    def elements(self, phase: Phase, batch: Any) -> int:
        """Return the bases of all windows: a variant has two."""
        items = self.items(phase, batch)
        return items * (self.kmer if phase.is_training else 2 * self.window_bases)

    def check_data(self, data: Path) -> None:
        """Read the FASTA file, and the VCF if there is one."""
        from workloads._genomics import genomics_data

        genomics_data.check(self, data)

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Count windows, or the records of the VCF that are scored, and say why others are not."""
        from workloads._genomics import genomics_data

        return genomics_data.records_used(self, data, is_training=phase.is_training)

    def check(self, phase: Phase, output: Any) -> None:
        """Refuse a loss or scores that are not finite."""
        if not bool(output.isfinite().all()):
            raise ValueError(f"{'loss' if phase.is_training else 'score'} is not finite")
