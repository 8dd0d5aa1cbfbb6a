"""Masks of a segmentation that is served in 16 bits, held against those of eager fp32."""

from typing import Any

import pytest
import torch

from bench.core.nouns import Serving
from bench.measure.messages import Messages, TrialResult
from bench.serve.live.marked_voxels import dice_of
from bench.serve.live.serving_engine import ServingEngine
from bench.serve.served_trial import run_request
from tests.measure.trial_requests import request_of


def result_of(dtype: str) -> TrialResult:
    sent: list[Any] = []
    messages = Messages()
    messages.send = sent.append  # type: ignore[method-assign]
    serving = Serving(arrivals="uniform:2/s", given="uniform:2/s", seconds=0.6)
    request = request_of("imaging-infer", dtype=dtype, data="generated", serving=serving)
    run_request(request, messages)
    (result,) = (one for one in sent if isinstance(one, TrialResult))
    return result


def test_dice_pools_the_voxels_of_all_classes_but_the_background() -> None:
    masks = {0: torch.tensor([0, 1, 1, 2]), 1: torch.tensor([2, 2, 0, 0])}
    expected = {0: torch.tensor([0, 1, 2, 2]), 1: torch.tensor([2, 0, 0, 1])}
    # In both: a 1, a 2 and a 2; marked are 3 + 2 and 3 + 2.
    assert dice_of(masks, expected) == pytest.approx(2 * 3 / 10)
    assert dice_of(masks, masks) == 1.0
    nothing = {0: torch.zeros(4)}
    assert dice_of(nothing, nothing) is None
    assert dice_of(nothing, {0: torch.ones(4)}) == 0.0


def test_masks_in_16_bits_are_nearly_those_of_fp32_and_the_row_says_how_near() -> None:
    result = result_of("bf16")
    assert "wrong_output" not in result.reasons, result.detail
    _, _, words = result.detail.partition("Dice ")
    dice, _, over = words.partition(" against fp32 over ")
    assert 0.97 < float(dice) < 1.0 and over.startswith("2 requests")


def test_masks_of_garbled_logits_make_the_row_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and together alike, and only at the size that is served: no other check sees it."""
    serve = ServingEngine.serve

    def garbled(engine: ServingEngine, requests: Any) -> Any:
        return serve(engine, requests).round()

    monkeypatch.setattr(ServingEngine, "serve", garbled)
    result = result_of("bf16")
    assert "wrong_output" in result.reasons
    assert "against fp32 over 2 requests, at least 0.94" in result.detail


def test_what_fp32_is_held_against_has_the_weights_that_are_served() -> None:
    serving = Serving(arrivals="uniform:2/s", given="uniform:2/s", seconds=0.6)
    request = request_of("imaging-infer", dtype="fp32", data="generated", serving=serving)
    engine = ServingEngine(request)
    engine.build(is_checked=False)
    own = [engine.serve([place]).clone() for place in (1, 3)]
    torch.manual_seed(17)
    for output, (place, plain) in zip(own, engine.plain_outputs([1, 3]), strict=True):
        assert torch.equal(output, plain), place


def test_eager_fp32_has_no_dice_with_itself() -> None:
    assert "Dice" not in result_of("fp32").detail
