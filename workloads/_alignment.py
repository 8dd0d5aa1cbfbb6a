"""The recurrence of `align` as a torch module.

Shapes: B pairs, L letters. H[i, j] = max(0, H[i-1, j-1] + score(a_i, b_j), H[i-1, j] - gap,
H[i, j-1] - gap); the diagonal d holds all cells with i + j = d, by i.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class Alignment(nn.Module):
    """Best local score of each pair, by anti-diagonals."""

    def __init__(
        self, *, letters: int, match: float, mismatch: float, never: float, gap: float
    ) -> None:
        super().__init__()
        scores = torch.full((letters + 1, letters + 1), never)
        scores[:letters, :letters] = mismatch
        scores[:letters, :letters].fill_diagonal_(match)
        self.scores = nn.Parameter(scores, requires_grad=False)
        self.letters = letters
        self.gap = gap

    def forward(self, pairs_B2L: Tensor) -> Tensor:  # noqa: N803
        """Return scores (B,) of pairs of whole numbers (B, 2, L)."""
        first_BL, length = pairs_B2L[:, 0], pairs_B2L.shape[2]  # noqa: N806
        # Cells outside the table meet the padding letter, whose score keeps them at zero.
        ends = (length - 1, length - 1)
        second_BK = pad(pairs_B2L[:, 1].flip(1), ends, value=self.letters)  # noqa: N806
        rows_BL = first_BL * (self.letters + 1)  # noqa: N806
        table = self.scores.float().flatten()  # a 16-bit sum would stop growing
        before = last = best = torch.zeros_like(first_BL, dtype=table.dtype)
        for diagonal in range(2 * length - 1):
            start = 2 * length - 2 - diagonal
            score = table[rows_BL + second_BK[:, start : start + length]]
            cell = (pad(before, (1, -1)) + score).clamp_min(0)
            cell = torch.maximum(cell, torch.maximum(pad(last, (1, -1)), last) - self.gap)
            best = torch.maximum(best, cell)
            before, last = last, cell
        return best.amax(dim=1)
