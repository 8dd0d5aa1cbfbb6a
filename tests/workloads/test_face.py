"""Face: published figures, ArcFace's loss, sampled identities, and folders of pictures."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from bench.cli import main
from tests.workloads.steps_of_workloads import generated_batch
from workloads._face.face_net import margin_loss
from workloads.face import INFER, TRAIN, Workload

TINY = Workload(**Workload.sizes["tiny"])
WITHOUT_HEAD = {"identities": 1, "gallery": 1}


@pytest.mark.parametrize(
    ("depths", "num_parameters", "forward_gflops"),
    [((2, 2, 2, 2), 24_025_600, 5.22), ((3, 4, 14, 3), 43_590_848, 12.62),
     ((3, 13, 30, 3), 65_156_160, 24.18)],
)  # fmt: skip
def test_parameters_and_flops_are_those_of_arcface_torch(
    depths: tuple[int, ...], num_parameters: int, forward_gflops: float
) -> None:
    """Figures without the head; iresnet50 and 100 as its flops.py prints them, twice the MACs."""
    workload = Workload(depths=depths, **WITHOUT_HEAD)
    assert workload.num_parameters() - workload.embedding == num_parameters
    assert workload.flops_per_item(INFER) / 1e9 == pytest.approx(forward_gflops, abs=0.005)


def test_the_loss_turns_the_own_angle_by_the_margin() -> None:
    generator = torch.Generator().manual_seed(0)
    cosine = torch.rand(6, 5, generator=generator) * 1.8 - 0.9
    own = torch.tensor([0, 1, 2, 3, 4, 0])
    cosine[0, 0] = -0.95  # turned further it would come back: lowered instead
    angle = torch.acos(cosine)
    logits = torch.cos(angle)
    for row, identity in enumerate(own.tolist()):
        logits[row, identity] = math.cos(float(angle[row, identity]) + 0.5)
    logits[0, 0] = -0.95 - 0.5 * math.sin(0.5)
    expected = cross_entropy(64 * logits, own)
    torch.testing.assert_close(margin_loss(cosine, own), expected, rtol=1e-4, atol=1e-4)


def test_sampled_identities_hold_the_batchs_own_and_follow_its_draw_alone() -> None:
    workload = Workload(**{**Workload.sizes["tiny"], "identities": 500, "sample_rate": 0.1})
    batch, again = (generated_batch(workload, TRAIN, seed=3) for _ in range(2))
    other = generated_batch(workload, TRAIN, seed=4)
    assert len(batch["rows"]) == workload.num_compared == 50
    assert torch.equal(batch["rows"], again["rows"])
    assert not torch.equal(batch["rows"], other["rows"])
    samples = workload.dataset(TRAIN, data=None, seed=3)
    own = torch.stack([samples[index]["identity"] for index in range(workload.batch)])
    assert torch.equal(batch["rows"][batch["identity"]], own)
    assert batch["rows"].unique().numel() == 50


def test_a_search_finds_the_vector_itself_and_reads_the_same_gallery_everywhere() -> None:
    net = TINY.build_net().eval()
    batch = generated_batch(TINY, INFER)
    with torch.inference_mode():
        ready = TINY.prepare(INFER, net, batch)
        assert ready["gallery"].shape == (1000, 64)
        assert ready["gallery"] is TINY.prepare(INFER, net, batch)["gallery"], "one for all batches"
        assert torch.equal(ready["gallery"], TINY.build_net().gallery(TINY))
        embedding = net(batch["face"])
        gallery = ready["gallery"].clone()
        gallery[[7 * place for place in range(TINY.batch)]] = embedding
        found = TINY.infer(net, {"face": batch["face"], "gallery": gallery})
    assert found["place"].tolist() == [7 * place for place in range(TINY.batch)]
    torch.testing.assert_close(found["cosine"], torch.ones(TINY.batch))
    large = Workload(**{**Workload.sizes["tiny"], "gallery": 9000})
    vectors = large.build_net().gallery(large)
    assert vectors.shape == (9000, 64)
    assert vectors.unique(dim=0).shape == vectors.shape, "what is repeated is moved on"


def write_faces(root: Path, *, people: int = 4, pictures: int = 6, side: int = 56) -> Path:
    rng = np.random.default_rng(0)
    for person in range(people):
        (root / f"person_{person}").mkdir(parents=True)
        for number in range(pictures):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            kind = "png" if number % 2 else "jpg"
            Image.fromarray(pixels).save(root / f"person_{person}" / f"{number:04d}.{kind}")
    return root


def test_faces_of_a_folder_are_read_and_every_fifth_is_held_out(tmp_path: Path) -> None:
    root = write_faces(tmp_path / "faces")
    (root / ".hidden").mkdir()
    (root / "person_0" / "notes.txt").write_text("no picture")
    TINY.check_data(root)
    train, held_out = (TINY.dataset(phase, data=root, seed=0) for phase in Workload.phases)
    assert (len(train), len(held_out)) == (20, 4)
    assert [int(held_out[index]["identity"]) for index in range(4)] == [0, 1, 2, 3]
    pixels = np.asarray(Image.open(root / "person_2" / "0004.jpg"))
    expected = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(held_out[2]["face"], expected)
    png = torch.from_numpy(np.asarray(Image.open(root / "person_0" / "0001.png")).copy())
    straight = png.permute(2, 0, 1) / 127.5 - 1
    sides = [TINY.dataset(TRAIN, data=root, seed=seed)[1]["face"] for seed in range(8)]
    is_straight = [torch.allclose(one, straight) for one in sides]
    assert {True, False} == set(is_straight)
    assert all(
        torch.allclose(one.flip(2), straight) for one in sides if not (one == straight).all()
    )


def cut_short(root: Path) -> None:
    path = root / "person_1" / "0002.jpg"
    path.write_bytes(path.read_bytes()[:700])


def more_people(root: Path) -> None:
    for number in range(4, 24):
        (root / f"person_{number}").mkdir()
        Image.new("RGB", (56, 56)).save(root / f"person_{number}" / "0000.png")


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut short": (cut_short, "0002.jpg cannot be read as a picture"),
    "text": (lambda root: (root / "person_0" / "0003.png").write_text("x"), "0003.png cannot be"),
    "another size": (
        lambda root: Image.new("RGB", (60, 60)).save(root / "person_2" / "0000.jpg"),
        "0000.jpg is 60 x 60 pixels, not 56 x 56; .* --set pixels=60",
    ),
    "not square": (
        lambda root: Image.new("RGB", (60, 50)).save(root / "person_2" / "0000.jpg"),
        "60 x 50 pixels.* to squares",
    ),
    "nobody": (lambda root: (root / "zed").mkdir(), "zed holds no picture"),
    "too many": (more_people, "faces of 24 people, .* --set identities=24"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    spoil, words = BAD[what]
    root = write_faces(tmp_path / "faces")
    spoil(root)
    command = [
        "run",
        "--workload",
        "face",
        "--size",
        "tiny",
        "--device",
        "cpu",
        "--data",
        str(root),
    ]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert re.search(words, line), line
