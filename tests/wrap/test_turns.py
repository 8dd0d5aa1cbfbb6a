"""Which of several optimizers ends a step, and how a step differs from most."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import BatchEncoding

from bench.wrap.steps.batches import leading
from bench.wrap.steps.happened import Happened, Usual
from bench.wrap.steps.turns import MOST_TURNS, Turns

D, G, X = 1, 2, 3


def ends(turns: list[int], *, num_known: int | None) -> list[int]:
    """Return the places of the turns that end a step."""
    settling = Turns()
    found = [settling.ends_step(turn, num_known=num_known) for turn in turns]
    return [place for place, is_end in enumerate(found) if is_end]


@pytest.mark.parametrize(
    ("cycle", "num_known", "expected"),
    [
        ([D], 1, [0, 1, 2, 3]),
        ([D, G], 2, [3, 5, 7]),
        ([D, D, D, D, D, G], 2, [11, 17, 23]),
        ([G, D, D], 2, [3, 6, 9]),
        ([D, G, X], 3, [5, 8, 11]),
    ],
    ids=["one", "a GAN", "a WGAN", "the generator first", "three"],
)
def test_the_rarest_and_of_equals_the_last_ends_a_step(
    cycle: list[int], num_known: int, expected: list[int]
) -> None:
    assert ends(cycle * 4, num_known=num_known) == expected


def test_an_optimizer_that_never_updates_is_waited_for_fifty_updates() -> None:
    assert ends([D] * (MOST_TURNS + 2), num_known=2) == [MOST_TURNS - 1, MOST_TURNS, MOST_TURNS + 1]


def test_one_made_anew_takes_the_place_of_one_that_is_gone() -> None:
    settling = Turns()
    assert settling.ends_step(D, num_known=1)
    settling.is_final = True
    settling.forget(D)
    assert settling.ends_step(G, num_known=1)


def test_modules_that_are_called_in_turn_make_one_step() -> None:
    assert ends([D, G] * 3, num_known=None) == [3, 5]


def test_what_most_steps_hold_belongs_to_the_step() -> None:
    usual = Usual()
    each = {"an evaluation"}
    assert [usual.unusual(Happened(kinds=set(each))) for _ in range(3)] == [[], [], []]
    assert usual.unusual(Happened(kinds={*each, "a checkpoint"})) == ["a checkpoint"]
    assert usual.unusual(Happened()) == []


def test_a_step_with_other_backward_passes_is_another_kind() -> None:
    usual = Usual()
    for _ in range(3):
        assert usual.unusual(Happened(num_backward=4)) == []
    assert usual.unusual(Happened(num_backward=2)) == ["2 backward passes, not 4"]


def test_a_loader_that_is_read_ahead_of_gives_each_step_its_batch() -> None:
    usual = Usual()
    steps = [(2, 16), (1, 8), (0, 0), (2, 16), (1, 8), (0, 0)]
    items = []
    for num_batches, num_items in steps:
        happened = Happened(num_batches=num_batches, items=num_items)
        assert not usual.unusual(happened)
        items.append(usual.items(happened))
    assert items[2:] == [8] * 4


@dataclass
class Pair:
    image: Any
    label: Any


Named = namedtuple("Named", ["text", "image"])
FOUR = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (FOUR, (4, "batch")),
        ([FOUR, torch.zeros(3)], (4, "batch[0]")),
        ((["a", "b"], {"x": FOUR}), (4, "batch[1]['x']")),
        (BatchEncoding({"input_ids": FOUR}), (4, "batch['input_ids']")),
        (Pair(image=FOUR, label=None), (4, "batch.image")),
        (Named(text="a", image=FOUR), (4, "batch.image")),
        (FOUR.numpy(), (4, "batch")),
        (torch.zeros(()), None),
        (["a"] * 1000, None),
        (None, None),
    ],
    ids=str,
)
def test_items_are_the_first_dimension_of_the_first_tensor(batch: Any, expected: Any) -> None:
    assert leading(batch) == expected
