"""Surveillance: published figures, average precision by hand, COCO and WIDER FACE files."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.cli import main
from bench.measure.engine.correctness import compare
from tests.workloads.steps_of_workloads import generated_batch
from workloads._surveillance.average_precision import Boxes, ap50, overlaps
from workloads._surveillance.detection_net import in_any_order
from workloads.surveillance import INFER, TRAIN, Workload

TINY = Workload(**Workload.sizes["tiny"])


def test_parameters_and_flops_are_those_of_the_published_detectors() -> None:
    large, base = (Workload(**Workload.sizes[size]) for size in ("large", "base"))
    assert replace(large, denoising=0).num_parameters() == 42_870_636
    assert large.num_parameters() == 42_870_636 + 81 * 256, "a vector for each noisy class"
    assert base.num_parameters() / 1e6 == pytest.approx(20.2, abs=0.05)
    # The paper's table 2: 136 and 60 GFLOP, which count a multiply-add as two.
    assert large.flops_per_item(INFER) / 1e9 == pytest.approx(136, rel=0.02)
    assert base.flops_per_item(INFER) / 1e9 == pytest.approx(60, rel=0.03)


def test_denoising_queries_follow_the_frame_with_the_most_boxes() -> None:
    workload = replace(TINY, denoising=100)
    for most, expected in ((1, 200), (3, 198), (7, 196), (150, 300)):
        batch = {"labels": [{"boxes": torch.zeros(number, 4)} for number in (1, most)]}
        assert workload.num_denoising(TRAIN, batch) == expected
    assert workload.num_denoising(INFER) == TINY.num_denoising(TRAIN) == 0
    assert workload.num_denoising(TRAIN) == 198, "three boxes at most in a generated frame"


def boxes(*corners: tuple[float, ...], classes: list[int], scores: Any = None) -> Boxes:
    return Boxes(
        corners=np.array(corners, dtype=float).reshape(-1, 4),
        classes=np.array(classes),
        scores=None if scores is None else np.array(scores),
    )


def test_average_precision_is_that_worked_by_hand() -> None:
    box = np.array([0.0, 0.0, 2.0, 2.0])
    others = np.array([[1.0, 0, 3, 2], [0, 0, 2, 1], [5, 5, 6, 6]])
    np.testing.assert_allclose(overlaps(box, others), [1 / 3, 1 / 2, 0])
    left, right, far = (0, 0, 2, 2), (4, 0, 6, 2), (9, 9, 10, 10)
    truth = [boxes(left, right, classes=[0, 0]), boxes(left, classes=[1])]
    # Class 0: right, wrong (found before), right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    found = [
        boxes(left, (0, 0, 2, 1.9), right, far, classes=[0, 0, 0, 1], scores=[0.9, 0.8, 0.7, 0.6]),
        boxes((0, 0, 2, 1), far, classes=[1, 0], scores=[0.5, 0.1]),
    ]
    # Class 1: wrong, then one that overlaps by exactly half: 1/2 at recall 1.
    assert ap50(found, truth=truth) == pytest.approx(((0.5 + 0.5 * 2 / 3) + 0.5) / 2)
    perfect = [replace(one, scores=np.ones(len(one.classes))) for one in truth]
    assert ap50(perfect, truth=truth) == 1.0
    nothing = [boxes(classes=[], scores=[])] * 2
    assert ap50(nothing, truth=truth) == 0.0


def test_half_precision_agrees_whatever_order_queries_have() -> None:
    torch.manual_seed(0)
    net, batch = TINY.build_net().eval(), generated_batch(TINY, INFER)

    def flat(found: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([one.double().flatten() for one in found.values()])

    with torch.inference_mode():
        found = TINY.infer(net, batch)
        shuffled = {**found, "boxes": found["boxes"].flip(1), "logits": found["logits"].flip(1)}
        same = flat(TINY.comparable(INFER, found))
        assert torch.equal(flat(TINY.comparable(INFER, shuffled)), same)
        batch["frames"] = batch["frames"].bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = flat(in_any_order(TINY.infer(net.bfloat16(), batch)))
    error = compare(rough, same, tolerance_frac=6e-2).error_frac
    assert error is not None and 0 < error < 3e-2


def test_gap_says_how_many_cameras_a_device_carries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", "--workload", "surveillance-infer", "--size", "tiny", "--device", "fake"]
    assert main([*run, "--set", "cameras=8", "--out", str(tmp_path)]) == 0
    (rows,) = tmp_path.glob("*.csv")
    load = ["--load", "surveillance-infer:25/s", "--latency", "500ms"]
    capsys.readouterr()
    main(["gap", str(rows), *load, "--json"])  # the ratio itself is missing: nothing was trained
    (served,) = json.loads(capsys.readouterr().out)["served"]
    cameras = served["carries_per_s"]["value"] / 25
    assert cameras == pytest.approx(1 / served["share"]["value"])
    # Without waiting a step of eight frames would take 2 ms and what its FLOPs take at 1 TFLOP/s.
    workload = replace(TINY, cameras=8)
    most = 8 / workload.simulated_step_s(INFER) / 25
    assert 0.8 * most < cameras < 1.05 * most


# Files -----------------------------------------------------------------------------------------

CLASSES = {3: "person", 17: "car"}
Coco = dict[str, Any]


def picture(path: Path, *, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def coco_content(names: list[str]) -> Coco:
    pictures = [
        {"id": number, "file_name": name, "width": 64, "height": 48, "licence": 1}
        for number, name in enumerate(names)
    ]
    box = {"category_id": 17, "bbox": [16, 12, 32.0, 24], "iscrowd": 0, "segmentation": []}
    every = [{**box, "image_id": 0, "id": 1},
             {**box, "image_id": 0, "category_id": 3, "bbox": [48, 24, 100, 24]},
             {**box, "image_id": 0, "iscrowd": 1}, {**box, "image_id": 0, "bbox": [1, 1, 0, 5]},
             {**box, "image_id": 1}]  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in CLASSES.items()]
    return {"info": {}, "images": pictures, "annotations": every, "categories": categories}


def write_coco(root: Path, *, parts: tuple[str, ...] = ("train2017", "val2017")) -> Path:
    (root / "annotations").mkdir(parents=True)
    for part in parts:
        names = [f"{part}_{number}.jpg" for number in range(3)]
        for name in names:
            picture(root / "images" / name)
        content = json.dumps(coco_content(names))
        (root / "annotations" / f"instances_{part}.json").write_text(content)
    return root


def test_frames_of_coco_are_stretched_with_their_boxes(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    TINY.check_data(root)
    assert TINY.data_used(INFER, root).words == (
        "2 frames with 3 boxes of instances_val2017.json; left out: 1 crowds; left out: 1 boxes "
        "without extent; left out: 1 frames without a box"
    )
    train, held_out = (TINY.dataset(phase, data=root, seed=0) for phase in Workload.phases)
    assert len(train) == len(held_out) == 2, "the third frame of each has no box"
    sample = held_out[0]
    assert sample["frame"].shape == (3, 128, 128)
    assert 0 <= sample["frame"].min() < 0.1 and 0.9 < sample["frame"].max() <= 1
    # Crowds and boxes without extent are left out; what leaves the picture is cut off.
    expected = [[0.5, 0.5, 0.5, 0.5], [0.875, 0.75, 0.25, 0.5]]
    torch.testing.assert_close(sample["boxes"], torch.tensor(expected))
    assert sample["class_labels"].tolist() == [1, 0], "in the order of the categories"
    mirrored = [TINY.dataset(TRAIN, data=root, seed=seed)[0]["boxes"][1, 0] for seed in range(9)]
    assert {round(float(one), 3) for one in mirrored} == {0.125, 0.875}
    batch = TINY.collate(TRAIN)([train[0], train[1]])
    loss = TINY.loss(TINY.build_net().train(), batch)
    TINY.check(TRAIN, loss.detach())
    # One file serves both phases; pictures may lie in a folder of its name.
    other = write_coco(tmp_path / "other", parts=("all",))
    (other / "images").rename(other / "all")
    assert [len(TINY.dataset(phase, data=other, seed=0)) for phase in Workload.phases] == [2, 2]


WIDER = """\
0--Parade/one.jpg
2
16 12 32 24 0 0 0 0 0 0
0 0 8 8 1 0 0 1 0 0
0--Parade/none.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Shop/two.jpg
1
0 0 64 48 0 0 0 0 0 0
"""


def write_wider(root: Path) -> Path:
    for part in ("train", "val"):
        for name in ("0--Parade/one", "0--Parade/none", "1--Shop/two"):
            picture(root / f"WIDER_{part}" / "images" / f"{name}.jpg")
        path = root / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(WIDER)
    return root


def test_faces_of_wider_face_are_frames_of_one_class(tmp_path: Path) -> None:
    root = write_wider(tmp_path)
    TINY.check_data(root)
    assert TINY.data_used(INFER, root).words.endswith(
        "; left out: 1 boxes called invalid; left out: 1 frames without a box"
    )
    frames = TINY.dataset(INFER, data=root, seed=0)
    assert len(frames) == 2, "a frame without a face is left out"
    torch.testing.assert_close(frames[0]["boxes"], torch.full((1, 4), 0.5))  # the other is invalid
    assert frames[1]["class_labels"].tolist() == [0]


def change(root: Path, **changed: Any) -> None:
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def spoil_wider(root: Path, old: str, new: str) -> None:
    write_wider(root / "wider")
    path = root / "wider" / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    path.write_text(WIDER.replace(old, new))


BOX = {"image_id": 0, "category_id": 17, "bbox": [1, 1, 5, 5]}
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no annotations": (
        lambda root: [path.unlink() for path in (root / "annotations").iterdir()],
        "has no annotations/instances_.*json .*COCO.* or wider_face_",
    ),
    "no JSON": (
        lambda root: (root / "annotations" / "instances_val2017.json").write_text("{"),
        "instances_val2017.json is not COCO's instances: .*truncated",
    ),
    "no images": (lambda root: change(root, images=7), "train2017.json is not COCO.*images"),
    "three numbers": (
        lambda root: change(root, annotations=[{**BOX, "bbox": [1, 2, 3]}]),
        "length >= 4.*annotations",
    ),
    "strange class": (
        lambda root: change(root, annotations=[{**BOX, "category_id": 5}]),
        "category_id 5, which is not there",
    ),
    "strange picture": (
        lambda root: change(root, annotations=[{**BOX, "image_id": 77}]),
        "image_id 77, which is not there",
    ),
    "a picture twice": (
        lambda root: change(root, images=coco_content(["train2017_0.jpg"])["images"] * 2),
        "train2017.json: image id 0 is there more than once",
    ),
    "a class twice": (
        lambda root: change(root, categories=[{"id": 17, "name": name} for name in "ab"]),
        "train2017.json: category id 17 is there more than once",
    ),
    "a box without end": (
        lambda root: change(root, annotations=[{**BOX, "bbox": [1e308, 1, 1e308, 5]}]),
        "a bbox of image_id 0 is not finite",
    ),
    "a box outside": (
        lambda root: change(root, annotations=[{**BOX, "bbox": [64, 1, 5, 5]}]),
        "a box from 64, 1 to 69, 6 of train2017_0.jpg lies outside of its 64 x 48 pixels",
    ),
    "a name that leaves": (
        lambda root: change(root, images=coco_content(["../../one.jpg", "b.jpg"])["images"]),
        "names a picture '../../one.jpg' outside of",
    ),
    "no boxes": (lambda root: change(root, annotations=[]), "train2017.json has no frame"),
    "many classes": (
        lambda root: change(root, categories=[{"id": n, "name": f"c{n}"} for n in range(20)]),
        "has 20 classes.* --set classes=20",
    ),
    "missing picture": (
        lambda root: (root / "images" / "train2017_1.jpg").unlink(),
        "train2017_1.jpg is missing, a picture of",
    ),
    "another size": (
        lambda root: picture(root / "images" / "train2017_1.jpg", width=70),
        r"train2017_1.jpg is 70 x 48 pixels, but 64 x 48 in",
    ),
    "cut short": (
        lambda root: (root / "images" / "val2017_0.jpg").write_bytes(
            (root / "images" / "val2017_0.jpg").read_bytes()[:800]
        ),
        "val2017_0.jpg cannot be read as a picture",
    ),
    "two to train on": (
        lambda root: (root / "annotations" / "instances_more.json").write_text("{}"),
        "several files of boxes.*instances_more.json, instances_train2017.json",
    ),
    "wider, a number": (
        lambda root: spoil_wider(root, "\n2\n", "\ntwo\n"), "from line 1 .'0--Parade/one.jpg'",
    ),
    "wider, not finite": (lambda root: spoil_wider(root, "16 12", "nan 12"), "from line 1 "),
    "wider, a name that leaves": (
        lambda root: spoil_wider(root, "1--Shop/two.jpg", "/etc/two.jpg"), "'/etc/two.jpg' outside",
    ),
    "wider, too few": (lambda root: spoil_wider(root, "\n1\n", "\n3\n"), "from line 8 .'1--Shop"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    spoil, words = BAD[what]
    root = write_coco(tmp_path / "data")
    spoil(root)
    data = root / "wider" if what.startswith("wider") else root
    command = ["run", "--workload", "surveillance", "--size", "tiny", "--device", "cpu"]
    assert main([*command, "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert re.search(words, line), line
