"""Local alignment of sequence pairs: Smith and Waterman's recurrence, one anti-diagonal at a time.

Cells of a diagonal are independent: a few vector operations over all pairs, with linear gaps
(https://doi.org/10.1016/0022-2836(81)90087-5). torch does not use the DPX instructions of newer
GPUs, so rows say nothing about kernels that do. Scores are summed in fp32 under every --dtype.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bench.workload
from bench.core.errors import UsageError
from bench.core.nouns import Dtype
from bench.workload import Phase

LETTERS = 4
MATCH, MISMATCH, GAP, NEVER = 3.0, -1.0, 2.0, -1e4


@dataclass(frozen=True, kw_only=True)
class Workload(bench.workload.Workload):
    """A batch of pairs, each of two sequences of equal length."""

    summary = "Smith-Waterman alignment in torch, without DPX instructions"
    domain = "medical"
    phases = (Phase(name="infer", item="pair", element="cell"),)
    is_selftest = True  # a probe for one claim: kept out of --workload all
    sizes = {
        "tiny": {"length": 32, "batch": 4},
        "small": {"length": 256, "batch": 32},
        "base": {"length": 512, "batch": 2048},
        "large": {"length": 640, "batch": 16384},
    }
    batch: int = 2048
    length: int = 512

    def __post_init__(self) -> None:
        if not (1 <= self.length <= 100_000 and 1 <= self.batch <= 10**7):
            raise UsageError("length must be from 1 to 100000 and batch from 1 to 10000000")

    def build_net(self) -> Any:
        """Return the recurrence; its only parameter is the table of scores."""
        from workloads._alignment import Alignment

        return Alignment(letters=LETTERS, match=MATCH, mismatch=MISMATCH, never=NEVER, gap=GAP)

    def dataset(self, phase: Phase, *, data: Any, seed: int) -> Sequence[Any]:
        """Return pairs (2, length): the second keeps nine letters in ten of the first."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        shape = (2 * self.batch, self.length)
        first = torch.randint(LETTERS, shape, generator=generator)
        other = torch.randint(LETTERS, shape, generator=generator)
        is_kept = torch.rand(shape, generator=generator) < 0.9
        return list(torch.stack([first, torch.where(is_kept, first, other)], dim=1))

    def infer(self, net: Any, batch: Any) -> Any:
        """Return the best local score of each pair."""
        return net(batch)

    def items(self, phase: Phase, batch: Any) -> int:
        """Return the pairs of the batch."""
        return self.batch if batch is None else len(batch)

    def elements(self, phase: Phase, batch: Any) -> int:
        """Return the cells of all their tables."""
        return self.items(phase, batch) * self.length**2

    def num_parameters(self) -> int:
        """Return the entries of the table of scores, with its row and column for padding."""
        return (LETTERS + 1) ** 2

    def flops_per_item(self, phase: Phase, batch: Any = None) -> float:
        """Return three additions and four comparisons for each cell, the best score included."""
        return 7.0 * self.length**2

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float:
        """Return three fp32 diagonals of L cells, read or written for each of 2 L - 1."""
        return 3.0 * 4 * self.length * (2 * self.length - 1)

    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Return a dozen diagonals, the letters as whole numbers, and the batches kept ready."""
        return self.batch * self.length * (12 * 4 + 6 * 8 + 4 * 2 * 8)

    def check(self, phase: Phase, output: Any) -> None:
        """Raise ValueError for a score that no pair of this length can have."""
        if not 0.0 <= float(output.min()) <= float(output.max()) <= MATCH * self.length:
            raise ValueError(f"a score of {output.min():g} or {output.max():g} is impossible")
