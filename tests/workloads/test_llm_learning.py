import random
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from tests.workloads import learning
from tests.workloads.learning import text_quality
from workloads.llm import Workload

TRAIN = Workload.phases[0]
TINY = Workload(**Workload.sizes["tiny"])
STEPS = 60


def trained_quality(data: Path | None) -> dict[str, float]:
    """Score after STEPS steps on windows that were not trained on."""
    torch.manual_seed(0)
    net = TINY.build_net().train()
    optimizer = TINY.optimizer(net)
    windows = TINY.dataset(TRAIN, data=data, seed=0)
    held_out = min(32, len(windows) // 8)
    seen = Subset(windows, range(len(windows) - held_out))  # type: ignore[arg-type]
    loader = DataLoader(seen, batch_size=TINY.batch, drop_last=True, shuffle=True)
    step = 0
    while step < STEPS:
        for batch in loader:
            optimizer.zero_grad()
            loss = TINY.loss(net, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), TINY.max_grad_norm or 0.0)
            optimizer.step()
            step += 1
            if step == STEPS:
                break
    return text_quality(net, windows[-held_out:], batch=TINY.batch)


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


def test_an_untrained_net_scores_no_better_than_chance() -> None:
    torch.manual_seed(0)
    windows = TINY.dataset(TRAIN, data=None, seed=1)
    quality = text_quality(TINY.build_net(), windows[:8], batch=TINY.batch)
    assert quality["loss_nats"] > quality["unigram_entropy_nats"] + 1.0
