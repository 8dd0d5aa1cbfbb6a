"""Alignment by anti-diagonals against the recurrence written out cell by cell."""

import pytest
import torch

from workloads.align import GAP, MATCH, MISMATCH, Workload

(INFER,) = Workload.phases


def plain_score(first: list[int], second: list[int]) -> float:
    """Smith and Waterman's recurrence, cell by cell."""
    table = [[0.0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, start=1):
        for j, b in enumerate(second, start=1):
            paired = table[i - 1][j - 1] + (MATCH if a == b else MISMATCH)
            table[i][j] = max(0.0, paired, table[i - 1][j] - GAP, table[i][j - 1] - GAP)
    return max(map(max, table))


@pytest.mark.parametrize("length", [1, 2, 7, 32])
def test_every_score_equals_the_plain_recurrence(length: int) -> None:
    align = Workload(batch=12, length=length)
    pairs = torch.stack(list(align.dataset(INFER, data=None, seed=3)))
    pairs[0, 1] = pairs[0, 0]  # equal sequences
    pairs[1, 0], pairs[1, 1] = 0, 1  # nothing in common
    scores = align.infer(align.build_net(), pairs)
    assert scores.tolist() == [plain_score(*pair.tolist()) for pair in pairs]
    assert scores[0] == MATCH * length and scores[1] == 0.0
    align.check(INFER, scores)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_stay_exact_when_the_net_is_cast(dtype: torch.dtype) -> None:
    align = Workload(batch=2, length=300)
    pairs = torch.stack(list(align.dataset(INFER, data=None, seed=1))[:2])
    pairs[0, 1] = pairs[0, 0]
    assert align.build_net().to(dtype)(pairs)[0] == MATCH * 300


def test_unrelated_pairs_score_less_than_noisy_copies() -> None:
    align = Workload(batch=8, length=64)
    pairs = torch.stack(list(align.dataset(INFER, data=None, seed=0))[:8])
    net = align.build_net()
    shuffled = pairs.clone()
    shuffled[:, 1] = pairs.roll(1, dims=0)[:, 1]
    assert net(pairs).min() > net(shuffled).max()


def test_costs_follow_the_formulas() -> None:
    align = Workload(batch=3, length=10)
    assert align.flops_per_item(INFER) == 700.0
    assert align.elements(INFER, None) == 300 and align.items(INFER, None) == 3
    assert align.bytes_per_item(INFER, dtype_bytes=4) == 3 * 4 * 10 * 19
