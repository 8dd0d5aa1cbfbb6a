"""Slides judged: a short training finds lesions; what a folder of tiles gives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.workloads.steps_of_workloads import generated_batch, train
from workloads._pathology.slide_folder import read_slides, split
from workloads.pathology import INFER, TRAIN, Workload

TINY = Workload(**Workload.sizes["tiny"])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def slide_auc(scores: list[float], *, labels: list[int]) -> float:
    """Share of pairs of an ill and a healthy slide in which the ill one's score is higher."""
    ill, healthy = ([s for s, one in zip(scores, labels, strict=True) if one == label]
                    for label in (1, 0))  # fmt: skip
    pairs = [(a > b) + 0.5 * (a == b) for a in ill for b in healthy]
    return sum(pairs) / len(pairs)


def judged(net: Any, samples: Any, *, count: int) -> tuple[list[float], list[int]]:
    """The score of each slide, over 0 for a lesion, and its label."""
    net.eval()
    chosen = [samples[index] for index in range(count)]
    with torch.inference_mode():
        logits = [TINY.infer(net, {"tiles": one["tiles"][None]})["logits"][0] for one in chosen]
    return [float(one[1] - one[0]) for one in logits], [int(one["label"]) for one in chosen]


def write_slides(folder: Path, *, count: int, seed: int = 0) -> Path:
    """Write generated slides as a folder: labels.csv, and PNG and JPEG tiles."""
    samples, lines = TINY.dataset(TRAIN, data=None, seed=seed), ["slide_id,label"]
    for index in range(count):
        sample = samples[index]
        (folder / f"s{index}").mkdir(parents=True)
        lines.append(f"s{index},{['normal', 'tumor'][int(sample['label'])]}")
        for number, tile in enumerate(sample["tiles"]):
            image = Image.fromarray(np.asarray(tile.permute(1, 2, 0)))
            image.save(folder / f"s{index}" / f"{number}.{'png' if number else 'jpg'}")
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    return folder


def test_a_short_training_finds_the_lesions_of_slides_and_of_files_it_has_not_seen(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    net, untrained = TINY.build_net(), TINY.build_net()
    losses = train(TINY, net=net, samples=TINY.dataset(TRAIN, data=None, seed=0), steps=80)
    assert torch.stack(losses[-10:]).mean() < 0.1 * torch.stack(losses[:10]).mean()
    unseen = TINY.dataset(INFER, data=None, seed=1)
    scores, labels = judged(net, unseen, count=20)
    assert 5 < sum(labels) < 15
    assert slide_auc(scores, labels=labels) > 0.95
    assert (
        np.mean([(score > 0) == bool(one) for score, one in zip(scores, labels, strict=True)]) > 0.9
    )
    assert slide_auc(judged(untrained, unseen, count=20)[0], labels=labels) < 0.9
    files = write_slides(tmp_path / "slides", count=10, seed=2)
    scores, labels = judged(net, TINY.dataset(INFER, data=files, seed=0), count=2)
    assert [score > 0 for score in scores] == [bool(one) for one in labels]


def test_a_finished_encoder_is_left_alone_and_the_head_learns_from_features() -> None:
    changed = {"train_encoder": False, "learning_rate": 1e-2}
    head_only = Workload(**{**Workload.sizes["tiny"], **changed})
    torch.manual_seed(0)
    net = head_only.build_net()
    before = {name: one.clone() for name, one in net.state_dict().items()}
    losses = train(
        head_only, net=net, samples=head_only.dataset(TRAIN, data=None, seed=0), steps=80
    )
    assert torch.stack(losses[-10:]).mean() < 0.5 * torch.stack(losses[:10]).mean()
    learned = {name.partition(".")[0] for name, one in net.state_dict().items()
               if not torch.equal(one, before[name])}  # fmt: skip
    assert learned == {"value", "gate", "score", "classifier"}
    large = Workload(train_encoder=False)
    asked = large.flops_per_item(TRAIN) / large.flops_per_item(INFER)
    assert asked < 1e-4, "a slide's inference costs ten thousand steps of the head's training"


def test_samples_follow_seed_and_index_and_a_bag_is_drawn_from_its_slide(tmp_path: Path) -> None:
    folder = write_slides(tmp_path / "slides", count=6)
    slides = read_slides(folder, classes=2)
    held_out = split(slides, is_training=False)
    assert {one.name for one in split(slides, is_training=True)} == {one.name for one in slides} - {
        one.name for one in held_out
    }
    assert 1 <= len(held_out) <= 2
    for data in (None, folder):
        for phase in (TRAIN, INFER):
            first, again, other = (TINY.dataset(phase, data=data, seed=s) for s in (0, 0, 1))
            assert torch.equal(first[0]["tiles"], again[0]["tiles"])
            assert first[0]["tiles"].dtype == torch.uint8
            if data is None or phase == TRAIN:
                assert not torch.equal(first[0]["tiles"], other[0]["tiles"])
    tiles = generated_batch(TINY, INFER)["tiles"]
    assert tiles.shape == (1, 64, 3, 56, 56) and 100 < tiles.float().mean() < 190
    of_file = TINY.dataset(INFER, data=folder, seed=0)[0]["tiles"]
    assert of_file.shape == (4, 3, 56, 56)
    batch = {"tiles": of_file[None], "label": torch.tensor([0])}
    assert TINY.elements(INFER, batch) == TINY.sized_as(INFER, batch).slide_tiles == 4
    assert TINY.sized_for(INFER, folder).slide_tiles == 4


def test_logits_of_slides_that_a_server_takes_together_pass_and_of_other_classes_do_not() -> None:
    TINY.check(INFER, {"logits": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="shape .3, 4., not 2 for each slide"):
        TINY.check(INFER, {"logits": torch.zeros(3, 4)})
