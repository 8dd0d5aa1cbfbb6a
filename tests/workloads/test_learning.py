"""A short training at tiny lowers the loss of text, and raises Dice of phantoms and of files.

It scores variants of DNA that break its order below those that keep it, and transcribes.

A predictor of the generated text that ignores context cannot beat the unigram entropy, and none can
beat the entropy rate. Entropies are in nats.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics.meandice import compute_dice
from monai.networks.utils import one_hot
from torch.utils.data import ConcatDataset

from tests.workloads.steps_of_workloads import generated_batch, train
from workloads import driving, face, genomics, imaging, llm, molecules, speech, surveillance
from workloads._driving import driving_net
from workloads._face.face_net import rank_one
from workloads._genomics.genomics_net import variant_auc
from workloads._imaging.phantom import write
from workloads._llm import text
from workloads._molecules import molecules_net
from workloads._speech.speech_text import token_error_rate

TINY = llm.Workload(**llm.Workload.sizes["tiny"])
TRAIN = TINY.phases[0]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def entropy_nats(probabilities: Any) -> float:
    """Shannon entropy; what never happens counts nothing."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


MATRIX, STATIONARY = text.transition_matrix(), text.stationary_distribution()
UNIGRAM_NATS = entropy_nats(STATIONARY)
"""Exact loss of the best predictor that knows only how frequent each byte is."""
RATE_NATS = float(STATIONARY @ [entropy_nats(row) for row in MATRIX])
"""Exact loss of the best predictor there is: it knows the transition matrix."""


def test_generated_text_has_the_entropies_of_its_source() -> None:
    assert entropy_nats(np.array([0.5, 0.25, 0.25, 0])) == pytest.approx(1.5 * np.log(2))
    windows = text.MarkovWindows(length=1000, seed=3)
    sample = np.stack([windows[index].numpy() for index in range(60)])
    assert entropy_nats(np.bincount(sample.ravel()) / sample.size) == pytest.approx(
        UNIGRAM_NATS, rel=0.01
    )
    states = sample - text.FIRST_BYTE
    surprise_nats = -np.log(MATRIX[states[:, :-1], states[:, 1:]])
    assert surprise_nats.mean() == pytest.approx(RATE_NATS, rel=0.02)


def test_training_learns_the_order_of_text_that_it_has_not_seen() -> None:
    torch.manual_seed(0)
    net = TINY.build_net().train()
    seen, unseen = (TINY.dataset(TRAIN, data=None, seed=seed) for seed in (0, 1))
    train(TINY, net=net, samples=seen, steps=60)
    with torch.no_grad():
        loss_nats = float(TINY.loss(net, torch.stack([unseen[index] for index in range(32)])))
    assert RATE_NATS < loss_nats < UNIGRAM_NATS - 1.0


def dice_of(workload: Any, *, net: torch.nn.Module, samples: Any) -> float:
    """Mean over volumes of the mean Dice over the foreground classes present in each."""
    scores = []
    with torch.inference_mode():
        for sample in samples:
            logits = workload.infer(net.eval(), {"image": sample["image"][None]})
            found = one_hot(logits.argmax(1, keepdim=True), workload.classes)
            truth = one_hot(sample["label"][None], workload.classes)
            scores.append(compute_dice(found, truth, include_background=False).nanmean().item())
    return float(np.mean(scores))


def test_short_training_lowers_loss_and_reaches_dice_on_generated_volumes_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    workload = imaging.Workload(**imaging.Workload.sizes["tiny"])
    train_phase, infer = workload.phases
    files = tmp_path / "data"
    write(files, cases=16, seed=0, shape=workload.volume)
    workload.check_data(files)
    torch.manual_seed(0)
    net = workload.build_net()
    sources = (None, files)
    held_out = [workload.dataset(infer, data=data, seed=0) for data in sources]
    untrained = [dice_of(workload, net=net, samples=samples) for samples in held_out]
    # Both are trained on in turn.
    samples = ConcatDataset([workload.dataset(train_phase, data=data, seed=0) for data in sources])
    losses = train(workload, net=net.train(), samples=samples, steps=200)
    for loss in losses:
        workload.check(train_phase, loss)
    first, last = (torch.stack(part).mean() for part in (losses[:20], losses[-20:]))
    assert last < 0.5 * first
    assert max(untrained) < 0.3
    assert min(dice_of(workload, net=net, samples=samples) for samples in held_out) >= 0.6


def test_training_on_dna_tells_variants_that_break_its_order() -> None:
    torch.manual_seed(0)
    workload = genomics.Workload(**genomics.Workload.sizes["tiny"])
    train_phase, score = workload.phases
    net = workload.build_net()
    variants = generated_batch(replace(workload, batch=128), score, seed=1)

    def quality() -> float:
        with torch.inference_mode():
            scores = workload.score(net.eval(), variants)
        workload.check(score, scores)
        return variant_auc(scores, variants["is_breaking"])

    assert 0.3 < quality() < 0.7
    train(workload, net=net, samples=workload.dataset(train_phase, data=None, seed=0), steps=60)
    assert quality() > 0.9


def test_training_learns_forces_and_energies_of_clusters_that_it_has_not_seen() -> None:
    workload = molecules.Workload(**molecules.Workload.sizes["tiny"])
    train_phase, infer = workload.phases
    held_out = generated_batch(replace(workload, batch=64), infer)
    torch.manual_seed(0)
    net = workload.build_net()

    def quality() -> dict[str, float]:
        with torch.inference_mode():
            return molecules_net.quality(workload.infer(net.eval(), held_out), held_out)

    before = quality()
    train(workload, net=net, samples=workload.dataset(train_phase, data=None, seed=0), steps=200)
    after = quality()
    assert before["force_error_frac"] > 0.9 and before["force_cosine"] < 0.3
    assert after["force_error_frac"] < 0.09 and after["force_cosine"] > 0.99
    assert after["energy_mae_ev_per_atom"] < 0.2 * before["energy_mae_ev_per_atom"]


def one_face_of_each(workload: Any, *, seed: int) -> torch.Tensor:
    """Pictures (N, 3, side, side) in the order of the identities."""
    samples = workload.dataset(workload.phases[1], data=None, seed=seed)
    faces = {int(one["identity"]): one["face"] for one in map(samples.__getitem__, range(400))}
    assert len(faces) == workload.identities
    return torch.stack([faces[identity] for identity in sorted(faces)])


def test_short_training_tells_people_apart_on_pictures_that_it_has_not_seen() -> None:
    torch.manual_seed(0)
    workload = face.Workload(**face.Workload.sizes["tiny"])
    net = workload.build_net()
    enrolled, *probes = (one_face_of_each(workload, seed=seed) for seed in (1, 2, 3, 4))

    def quality() -> float:
        return float(np.mean([rank_one(net, enrolled=enrolled, probes=one) for one in probes]))

    untrained = quality()
    samples = workload.dataset(workload.phases[0], data=None, seed=0)
    losses = train(workload, net=net, samples=samples, steps=60)
    assert untrained < 0.85
    assert torch.stack(losses[-5:]).mean() < 0.5 * losses[0]
    assert quality() > 0.9


@pytest.mark.slow
def test_short_training_finds_half_of_the_rectangles_by_class_and_place() -> None:
    from workloads._surveillance.detection_net import precision_on

    torch.manual_seed(0)
    workload = surveillance.Workload(**{**surveillance.Workload.sizes["tiny"], "pixels": 64})
    net = workload.build_net()
    unseen = workload.dataset(workload.phases[1], data=None, seed=1)
    held_out = [unseen[index] for index in range(40)]
    assert precision_on(net, held_out) < 0.1
    samples = workload.dataset(workload.phases[0], data=None, seed=0)
    losses = train(workload, net=net, samples=samples, steps=150)
    assert torch.stack(losses[-10:]).mean() < 0.45 * losses[0]
    assert precision_on(net, held_out) >= 0.45


@pytest.mark.slow
def test_training_on_speech_transcribes_what_it_has_not_heard() -> None:
    torch.manual_seed(0)
    workload = speech.Workload(**speech.Workload.sizes["tiny"])
    train_phase, _, transcribe = workload.phases
    net = workload.build_net()
    unheard = generated_batch(replace(workload, batch=64), transcribe, seed=1)

    def error_rate() -> float:
        with torch.inference_mode():
            found = workload.transcribe(net.eval(), unheard)
        workload.check(transcribe, found)
        return token_error_rate(found["ids"].tolist(), unheard["targets"].clamp(min=0).tolist())

    assert error_rate() > 0.8
    train(workload, net=net, samples=workload.dataset(train_phase, data=None, seed=0), steps=240)
    assert error_rate() < 0.1


def test_training_on_roads_finds_boxes_that_it_has_not_seen() -> None:
    workload = driving.Workload(**driving.Workload.sizes["tiny"])
    train_phase, infer = workload.phases
    held_out = generated_batch(replace(workload, batch=32), infer)
    torch.manual_seed(0)
    net = workload.build_net()

    def precision() -> float:
        with torch.inference_mode():
            return driving_net.quality(workload.infer(net.eval(), held_out), held_out)

    assert precision() < 0.1
    samples = workload.dataset(train_phase, data=None, seed=0)
    losses = train(workload, net=net, samples=samples, steps=200)
    first, last = (torch.stack(part).mean() for part in (losses[:5], losses[-20:]))
    assert last < 0.35 * first
    assert precision() > 0.5
