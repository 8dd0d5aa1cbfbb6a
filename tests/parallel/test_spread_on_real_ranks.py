"""Two real gloo ranks compute what one device computes on the joined batch."""

from typing import Any

import pytest
from gloo_ranks import results_of

LOSSES = [
    "losses:llm:ddp:fp32:1",
    "losses:llm:ddp:fp32:2",
    "losses:llm:fsdp:fp32:1",
    "losses:llm:tp:fp32:1",
    "losses:deep:ddp:fp32:1",
]
HALF_LOSSES = [
    "losses:llm:fsdp:bf16:1",
    "losses:llm:fsdp:fp16:1",
    "losses:llm:tp:bf16:1",
    "losses:llm:tp:fp16:1",
]
GRADIENTS = ["gradients:llm:ddp:2", "gradients:llm:fsdp:2", "gradients:llm:tp:1"]
LEARN = ["learn:llm:powersgd-2:24", "learn:llm:diloco-4:24"]


@pytest.fixture(scope="module")
def results() -> dict[str, list[Any]]:
    return results_of([*LOSSES, *HALF_LOSSES, *GRADIENTS, *LEARN, "meet", "outer"])


@pytest.mark.parametrize("case", LOSSES)
def test_losses_equal_those_of_one_device(case: str, results: dict[str, list[Any]]) -> None:
    for spread, alone in results[case][0]:
        assert spread == pytest.approx(alone, rel=2e-4)
    first, *_, last = results[case][0]
    assert last[0] < first[0]


@pytest.mark.parametrize("case", HALF_LOSSES)
def test_half_precision_stays_near_fp32(case: str, results: dict[str, list[Any]]) -> None:
    for spread, alone in results[case][0]:
        assert spread == pytest.approx(alone, rel=5e-3)


@pytest.mark.parametrize("case", GRADIENTS)
def test_clipped_gradients_equal_those_of_one_device(
    case: str, results: dict[str, list[Any]]
) -> None:
    assert max(results[case]) < 1e-4


@pytest.mark.parametrize("case", LEARN)
def test_loss_still_falls_with_a_mitigation(case: str, results: dict[str, list[Any]]) -> None:
    for first, last in results[case]:
        assert last < first - 1.0


def test_weights_are_averaged_when_the_period_is_over(results: dict[str, list[Any]]) -> None:
    # Both begin at rank 0's 0.0, add 1 or 2 a step, and average after the second and the fourth.
    assert results["meet"] == [[1.0, 3.0, 4.0, 6.0], [2.0, 3.0, 5.0, 6.0]]


def test_an_outer_step_is_nesterov_with_the_mean_change(results: dict[str, list[Any]]) -> None:
    # Mean change 1.5. Momentum 1.5: 0 - .7 (1.5 + .9 * 1.5); then momentum .9 * 1.5 + 1.5 = 2.85.
    first = -0.7 * (1.5 + 0.9 * 1.5)
    second = first - 0.7 * (1.5 + 0.9 * 2.85)
    for rank in results["outer"]:
        assert rank == pytest.approx([first, second])
