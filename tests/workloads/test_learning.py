"""A short training at tiny lowers the loss of text and raises Dice, generated and from files."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

from tests.workloads import learning
from tests.workloads.learning import dice_of, text_quality
from tests.workloads.steps_of_workloads import train
from workloads import imaging, llm, tabular
from workloads._imaging.phantom import write

TINY = llm.Workload(**llm.Workload.sizes["tiny"])
TRAIN = TINY.phases[0]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained_quality(data: Path | None) -> dict[str, float]:
    """Score after 60 steps on windows that were not trained on."""
    torch.manual_seed(0)
    net = TINY.build_net().train()
    windows = TINY.dataset(TRAIN, data=data, seed=0)
    held_out = min(32, len(windows) // 8)
    seen = Subset(windows, range(len(windows) - held_out))  # type: ignore[arg-type]
    train(TINY, net=net, samples=seen, steps=60)  # type: ignore[arg-type]
    unseen = [windows[-index] for index in range(1, held_out + 1)]
    return text_quality(net, unseen, batch=TINY.batch)


def test_training_learns_the_order_of_generated_text() -> None:
    quality = trained_quality(None)
    unigram = learning.source_unigram_entropy_nats()
    assert quality["unigram_entropy_nats"] == pytest.approx(unigram, rel=0.03)
    assert quality["loss_nats"] < unigram - 1.0
    assert quality["loss_nats"] > learning.source_entropy_rate_nats()


def test_training_learns_the_order_of_a_text_file(tmp_path: Path) -> None:
    nouns = ["scan", "lesion", "liver", "lobe", "sign", "vessel", "margin", "change"]
    words = [*nouns, "the", "shows", "a", "small", "near", "left", "right", "and", "no", "of"]
    chooser = random.Random(0)
    sentences = [" ".join(chooser.choices(words, k=9)).capitalize() for _ in range(2000)]
    path = tmp_path / "report.txt"
    path.write_text(".\n".join(sentences), encoding="utf-8")
    TINY.check_data(path)
    content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8).long()
    unigram = learning.unigram_entropy_nats(content.numpy())
    quality = trained_quality(path)
    assert quality["unigram_entropy_nats"] == pytest.approx(unigram, rel=0.03)
    assert quality["loss_nats"] < unigram - 0.5


@pytest.mark.parametrize("source", ["generated", "files"])
def test_short_training_lowers_loss_and_reaches_dice(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    workload = imaging.Workload(**imaging.Workload.sizes["tiny"])
    data = None
    if source == "files":
        data = tmp_path / "data"
        write(data, cases=16, seed=0, shape=workload.volume)
        workload.check_data(data)
    torch.manual_seed(0)
    net = workload.build_net().train()
    train_phase, infer = workload.phases
    held_out = workload.dataset(infer, data=data, seed=0)
    untrained = dice_of(workload, net=net, samples=held_out)
    samples = workload.dataset(train_phase, data=data, seed=0)
    losses = train(workload, net=net, samples=samples, steps=250)
    for loss in losses:
        workload.check(train_phase, loss)
    first, last = (torch.stack(part).mean() for part in (losses[:20], losses[-20:]))
    assert last < 0.5 * first
    assert net.training
    assert untrained < 0.3
    assert dice_of(workload, net=net, samples=held_out) >= 0.6


def test_the_loss_of_the_tabular_probe_falls() -> None:
    torch.manual_seed(0)
    probe = tabular.Workload(**tabular.Workload.sizes["tiny"])
    samples = probe.dataset(probe.phases[0], data=None, seed=0)
    losses = train(probe, net=probe.build_net(), samples=[samples[0]], steps=100)
    assert losses[-1] < 0.8 * losses[0]
