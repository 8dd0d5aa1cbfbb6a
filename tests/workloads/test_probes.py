"""The small workloads: alignment against the plain recurrence, a known time, a table's loss."""

import time

import pytest
import torch

from bench import discovery
from tests.workloads.steps_of_workloads import train
from workloads import align, sleep, tabular
from workloads.align import GAP, MATCH, MISMATCH

(ALIGN,) = align.Workload.phases
TRAIN, INFER = sleep.Workload.phases


def plain_score(first: list[int], second: list[int]) -> float:
    """Smith and Waterman's recurrence, cell by cell."""
    table = [[0.0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, start=1):
        for j, b in enumerate(second, start=1):
            paired = table[i - 1][j - 1] + (MATCH if a == b else MISMATCH)
            table[i][j] = max(0.0, paired, table[i - 1][j] - GAP, table[i][j - 1] - GAP)
    return max(map(max, table))


def test_every_score_equals_the_plain_recurrence() -> None:
    for length in (1, 2, 7, 32):
        workload = align.Workload(batch=12, length=length)
        pairs = torch.stack(list(workload.dataset(ALIGN, data=None, seed=3)))
        pairs[0, 1] = pairs[0, 0]  # equal sequences
        pairs[1, 0], pairs[1, 1] = 0, 1  # nothing in common
        scores = workload.infer(workload.build_net(), pairs)
        assert scores.tolist() == [plain_score(*pair.tolist()) for pair in pairs]
        assert scores[0] == MATCH * length and scores[1] == 0.0
        workload.check(ALIGN, scores)


def test_scores_stay_exact_when_the_net_is_cast() -> None:
    workload = align.Workload(batch=2, length=300)
    pairs = torch.stack(list(workload.dataset(ALIGN, data=None, seed=1))[:2])
    pairs[0, 1] = pairs[0, 0]
    for dtype in (torch.bfloat16, torch.float16):
        assert workload.build_net().to(dtype)(pairs)[0] == MATCH * 300


def test_second_sequences_are_noisy_copies() -> None:
    pairs = torch.stack(list(align.Workload(batch=8, length=640).dataset(ALIGN, data=None, seed=0)))
    is_kept = (pairs[:, 0] == pairs[:, 1]).float().mean()
    assert is_kept == pytest.approx(0.9 + 0.1 / 4, abs=0.02)


def test_costs_of_an_alignment_follow_the_formulas() -> None:
    workload = align.Workload(batch=3, length=10)
    assert workload.flops_per_item(ALIGN) == 700.0
    assert workload.elements(ALIGN, None) == 300 and workload.items(ALIGN, None) == 3
    assert workload.bytes_per_item(ALIGN, dtype_bytes=4) == 3 * 4 * 10 * 19


@pytest.mark.parametrize("is_training", [False, True])
def test_a_step_takes_its_time_to_a_thousandth(is_training: bool) -> None:
    workload = sleep.Workload(seconds=0.02, train_factor=0.5)
    expected_s = 0.01 if is_training else 0.02
    net, batch = workload.build_net(), torch.rand(1, 8)
    step = workload.loss if is_training else workload.infer
    times_s, kept = [], []  # results are kept, so that freeing them is not timed
    with torch.set_grad_enabled(is_training):
        for _ in range(17):
            start_s = time.perf_counter()
            kept.append(step(net, batch))
            times_s.append(time.perf_counter() - start_s)
    # A busy machine can only make a wait longer: the shortest shows what is waited for.
    assert expected_s <= min(times_s) < expected_s * 1.001 + 1e-4
    assert workload.simulated_step_s(TRAIN if is_training else INFER) == expected_s


def test_the_loss_of_the_tabular_probe_falls() -> None:
    torch.manual_seed(0)
    probe = tabular.Workload(**tabular.Workload.sizes["tiny"])
    samples = probe.dataset(probe.phases[0], data=None, seed=0)
    losses = train(probe, net=probe.build_net(), samples=[samples[0]], steps=100)
    assert losses[-1] < 0.8 * losses[0]


def test_probes_are_kept_out_of_all_workloads() -> None:
    assert all(discovery.load(name).cls.is_selftest for name in ("align", "sleep", "tabular"))
