"""Real gloo ranks compute what one device computes on the joined batch; what is long is slow.

Two ranks run all cases of one speed at once; four run the copies of a cut net.
"""

from typing import Any

import pytest
from rank_cases import results_of

SLOW = pytest.mark.slow
LOSSES = {
    "losses:llm:ddp:fp32:1": 2e-4,
    "losses:llm:ddp:fp32:2": 2e-4,
    "losses:llm:fsdp:fp32:1": 2e-4,
    "losses:llm:tp:fp32:1": 2e-4,
    "losses:deep:ddp:fp32:1": 2e-4,
    "losses:llm:fsdp:bf16:1": 5e-3,
    "losses:llm:fsdp:fp16:1": 5e-3,
    "losses:llm:tp:bf16:1": 5e-3,
    "losses:llm:tp:fp16:1": 5e-3,
}
SLOW_LOSSES = ["losses:deep:fsdp:fp32:1", "losses:llm:fsdp:fp32:2", "losses:llm:tp:fp32:2"]
GRADIENTS = ["gradients:llm:ddp:2", "gradients:llm:fsdp:2", "gradients:llm:tp:1"]
LEARN = ["learn:llm:powersgd-2:24", "learn:llm:diloco-4:24"]
MITIGATIONS = ["fp16", "bf16", "powersgd-2", "powersgd-4+fp16", "powersgd-4+bf16",
               "postlocalsgd-4", "diloco-4", "diloco-4+fp16", "diloco-4+bf16"]  # fmt: skip
MESH = ["losses:llm:tp x dp:fp32:1", "losses:llm:tp x dp:fp16:2", "gradients:llm:tp x dp:2"]

Results = dict[str, list[Any]]


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of([*LOSSES, *GRADIENTS, *LEARN, "meet", "outer"])


@pytest.fixture(scope="module")
def slow_results() -> Results:
    learn = [f"learn:llm:{name}:40" for name in ("", *MITIGATIONS)]
    learn += [f"learn:imaging:{name}:24" for name in ("", *MITIGATIONS)]
    return results_of([*learn, *SLOW_LOSSES])


def assert_near(found: list[Any], *, rel: float) -> None:
    for laid_out, alone in found[0]:
        assert laid_out == pytest.approx(alone, rel=rel)


@pytest.mark.parametrize("case", LOSSES)
def test_losses_equal_those_of_one_device(case: str, results: Results) -> None:
    assert_near(results[case], rel=LOSSES[case])
    first, *_, last = results[case][0]
    assert last[0] < first[0]


@SLOW
def test_copies_of_a_cut_net_equal_one_device(slow_results: Results) -> None:
    for case in SLOW_LOSSES:
        assert_near(slow_results[case], rel=2e-4)
    found = results_of(MESH, num_ranks=4)
    assert_near(found[MESH[0]], rel=2e-4)
    assert_near(found[MESH[1]], rel=5e-3)
    assert max(found[MESH[2]]) < 1e-4


@pytest.mark.parametrize("case", GRADIENTS)
def test_clipped_gradients_equal_those_of_one_device(case: str, results: Results) -> None:
    assert max(results[case]) < 1e-4


def test_loss_still_falls_with_a_mitigation(results: Results) -> None:
    for first, last in (rank for case in LEARN for rank in results[case]):
        assert last < first - 1.0


@SLOW
@pytest.mark.parametrize("name", MITIGATIONS)
def test_a_net_learns_nearly_as_without_mitigation(name: str, slow_results: Results) -> None:
    # DiLoCo was made for AdamW; over nnU-Net's momentum of .99 it lags by more.
    for kind, steps, lag in (("llm", 40, 1.0), ("imaging", 24, 0.5 if "diloco" in name else 0.15)):
        plain = slow_results[f"learn:{kind}::{steps}"]
        found = slow_results[f"learn:{kind}:{name}:{steps}"]
        for (first, last), (_, exact) in zip(found, plain, strict=True):
            assert last < (first - 2.0 if kind == "llm" else 0.65 * first)
            assert last < exact + lag


def test_weights_are_averaged_when_the_period_is_over(results: Results) -> None:
    # Both begin at rank 0's 0.0, add 1 or 2 a step, and average after the second and the fourth.
    assert results["meet"] == [[1.0, 3.0, 4.0, 6.0], [2.0, 3.0, 5.0, 6.0]]


def test_an_outer_step_is_nesterov_with_the_mean_change(results: Results) -> None:
    # Mean change 1.5. Momentum 1.5: 0 - .7 (1.5 + .9 * 1.5); then momentum .9 * 1.5 + 1.5 = 2.85.
    first = -0.7 * (1.5 + 0.9 * 1.5)
    second = first - 0.7 * (1.5 + 0.9 * 2.85)
    for rank in results["outer"]:
        assert rank == pytest.approx([first, second])
