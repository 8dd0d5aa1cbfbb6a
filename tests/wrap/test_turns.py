"""Which of several optimizers ends a step, and how a step differs from most."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import BatchEncoding

from bench.wrap.steps.batches import leading, size_of_lists
from bench.wrap.steps.happened import Happened, Usual
from bench.wrap.steps.turns import FEW_TURNS, MOST_TURNS, MOST_WITHOUT_END, Turns

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


@pytest.mark.parametrize("fold", [12, 30, 300])
def test_folds_with_optimizers_that_are_kept_go_on_with_their_own(fold: int) -> None:
    settling = Turns()
    found = [settling.ends_step(name, num_known=name) for name in range(1, 6) for _ in range(fold)]
    assert found.count(False) == 4 * (FEW_TURNS - 1) and found[-1]


def test_one_that_had_no_turn_for_long_and_comes_again_is_waited_for() -> None:
    # A generator is trained alone, and then once after each twenty updates of a critic.
    settling = Turns()
    assert all(settling.ends_step(G, num_known=1) for _ in range(20))
    found = [settling.ends_step(turn, num_known=2) for turn in ([D] * 20 + [G]) * 4]
    assert [place for place, is_end in enumerate(found) if is_end][-2:] == [62, 83]


def turn(settling: Turns, name: int, *, num_known: int, step: object) -> bool:
    """Note a turn as an optimizer's update does."""
    if settling.closer is None or not settling.has_seen(name):
        return settling.ends_step(name, num_known=num_known)
    if name != settling.closer:
        settling.lacks_end(step=step)
    return name == settling.closer


@pytest.mark.parametrize("fold", [30, 300])
def test_in_a_window_folds_go_on_after_two_hundred_turns(fold: int) -> None:
    settling, step, found = Turns(), object(), []
    for name in range(1, 40):
        for _ in range(fold):
            is_end = turn(settling, name, num_known=name, step=step)
            step = object() if is_end else step
            found.append(is_end)
        settling.is_final = True
    longest = max(len(run) for run in "".join("x" if one else "." for one in found).split("x"))
    assert longest <= MOST_WITHOUT_END + 10 and any(found[-10 * fold :])


def test_in_a_window_a_cycle_may_be_longer_once() -> None:
    settling, step = Turns(), object()
    for name in [*range(300)] * 2:  # each of many parameters has its own
        settling.ends_step(name, num_known=300)
    settling.is_final = True
    found = [turn(settling, name, num_known=300, step=step) for name in [*range(299)] * 5]
    assert not any(found) and turn(settling, 299, num_known=300, step=step)


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


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([8, 8, 8, 2], 2), ([8, 2, 8, 2], 2), ([1, 2, 3, 4], None)],
    ids=["an epoch's last", "of two", "all differ"],
)
def test_a_smaller_batch_is_not_of_the_usual_size(sizes: list[int], expected: int | None) -> None:
    usual = Usual()
    steps = [Happened(items=2 * size, num_batches=2) for size in sizes]
    for step in steps:
        usual.unusual(step)
    unlike = {step.items // 2 for step in steps if not usual.is_of_usual_size(step)}
    assert unlike == ({expected} if expected else set())


IMAGE = torch.rand(3, 8, 8)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (tuple(zip(*[(IMAGE, {"boxes": torch.rand(2, 4)})] * 4, strict=True)), 4),
        ([(IMAGE, 1)] * 4, 4),
        ([{"image": IMAGE}] * 4, 4),
        ({"image": [IMAGE] * 4}, 4),
        ([torch.rand(16, 3), torch.rand(16)], 0),
        ([[torch.rand(16, 3), torch.rand(16, 3)], torch.rand(16)], 0),
        ({"image": torch.rand(16, 3)}, 0),
    ],
    ids=["zipped", "pairs", "dicts", "dict of lists", "crops", "two inputs", "dict"],
)
def test_lists_of_samples_are_as_many_as_the_batch_size(batch: Any, expected: int) -> None:
    assert size_of_lists(batch, size=4) == expected
