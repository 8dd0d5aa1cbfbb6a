"""Driving: pillars, anchors and boxes that fit together, and KITTI folders."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.cli import main
from bench.core.errors import DataError
from tests.workloads.steps_of_workloads import generated_batch
from workloads._driving import driving_data, driving_net
from workloads._driving.kitti_files import frames
from workloads.driving import INFER, TRAIN, Workload

TINY = Workload(**Workload.sizes["tiny"])
THREE = replace(TINY, classes=3, grid=(64, 96))


def test_kittis_size_has_the_papers_parameters_and_flops() -> None:
    base = Workload()
    assert base.num_parameters() == 4_834_824
    assert base.flops_per_item(INFER) == pytest.approx(68.8e9, rel=1e-3)
    linear = 2 * 9 * 64 * 12_000 * 32
    assert base.flops_per_item(TRAIN) == 3 * base.flops_per_item(INFER) - linear


def test_a_point_is_in_its_pillar_with_its_offsets() -> None:
    shape = replace(TINY, pillars=4, points=3)
    points = np.array([[0.1, -6.3, -1, 0.5], [0.3, -6.3, -1, 0.7],  # cell 0
                       [12.7, 6.3, 0, 0.1],  # the last one
                       [13, 0, 0, 0], [1, 7, 0, 0], [1, 0, 2, 0], [-0.1, 0, 0, 0]],  # outside
                      np.float32)  # fmt: skip
    rng = np.random.default_rng(0)
    features, cells = driving_data.pillars(points, shape=shape, rng=rng)
    assert cells.tolist() == [0, 32 * 32 - 1, 32 * 32, 32 * 32]
    first = features[0][features[0][:, 3].argsort()]
    np.testing.assert_allclose(first[0], 0)
    offsets = [0.1, -6.3, -1, 0.5, -0.1, 0, 0, 0.1 - 0.2, -6.3 + 6.2]
    np.testing.assert_allclose(first[1], offsets, atol=1e-6)
    np.testing.assert_allclose(features[1, 0, 4:], [0, 0, 0, 0.1, 0.1], atol=1e-5)
    assert not features[1, 1:].any() and not features[2:].any()
    # What is too much is left out: points of a pillar, and pillars.
    many = np.repeat(points[:3], [9, 1, 1], axis=0)
    features, cells = driving_data.pillars(many, shape=replace(shape, pillars=1), rng=rng)
    assert features.shape == (1, 3, 9) and cells[0] in (0, 1023)


def test_pillars_go_to_their_place_on_the_canvas() -> None:
    net = TINY.build_net()
    pillars = torch.rand(2, 3, TINY.width)
    cells = torch.tensor([[0, 33, 1024], [1023, 1024, 5]])
    canvas = net.canvas(pillars, cells)
    assert torch.equal(canvas[0, :, 0, 0], pillars[0, 0])
    assert torch.equal(canvas[0, :, 1, 1], pillars[0, 1])
    assert torch.equal(canvas[1, :, 31, 31], pillars[1, 0])
    assert int((canvas != 0).sum()) <= 4 * TINY.width


def test_matched_anchors_and_their_residuals_give_the_boxes_back() -> None:
    rng = np.random.default_rng(3)
    for _ in range(8):
        _, kinds, boxes = driving_data.generated(THREE, rng=rng)
        target = driving_data.matched(kinds, boxes, shape=THREE)
        count = int(target["num_matched"])
        assert count >= len(boxes) and target["is_matched"].sum() == count
        numbers = target["matched"][:count]
        anchors = driving_net.anchors_of(numbers, THREE)
        same = driving_data.anchors_of(numbers.numpy(), shape=THREE)
        np.testing.assert_allclose(anchors, same, atol=1e-5)
        turned = torch.nn.functional.one_hot(target["directions"][:count], 2)
        found = driving_net.decoded(target["residuals"][:count], anchors, turned)
        for box, number in zip(found.numpy(), numbers, strict=True):
            gaps = np.abs(boxes[:, :6] - box[:6]).max(1)
            at = gaps.argmin()
            assert gaps[at] < 1e-4 and target["labels"][number] == kinds[at]
            assert math.cos(boxes[at, 6] - box[6]) == pytest.approx(1, abs=1e-5)
        labels = target["labels"].reshape(-1, 3, 2)
        for kind in range(3):  # an anchor is of its own class, background, or does not count
            assert set(labels[:, kind].unique().tolist()) <= {kind, 3, -1}
    assert not driving_data.matched(np.zeros(0, int), np.zeros((0, 7)), shape=TINY)["num_matched"]


def test_overlap_is_that_of_boxes_turned_to_the_nearest_axis() -> None:
    box = np.array([[4.8, 0.4, -1, 4.0, 2.0, 1.5, 0.1], [4.8, 0.4, -1, 4.0, 2.0, 1.5, 1.5]])
    found = driving_data.overlaps(box, kind=0, shape=TINY)
    at = 16 * 8 + 5  # x 4.4, y 0.4
    inside = (min(4.4 + 1.95, 6.8) - max(4.4 - 1.95, 2.8)) * 1.6
    assert found[at, 0, 0] == pytest.approx(inside / (4 * 2 + 3.9 * 1.6 - inside))
    across = (min(4.4 + 0.8, 5.8) - max(4.4 - 0.8, 3.8)) * 3.9
    assert found[at, 1, 1] == pytest.approx(across / (4 * 2 + 3.9 * 1.6 - across))


def test_a_near_box_with_a_lower_score_is_a_copy_and_perfect_maps_are_perfect() -> None:
    batch = generated_batch(replace(TINY, batch=2), TRAIN)
    truth = generated_batch(replace(TINY, batch=2), INFER)
    # Maps of what the training sweeps' matches say.
    scores = torch.full((2, TINY.places * 2, 1), -9.0)
    residuals, turned = torch.zeros(2, TINY.places * 2, 7), torch.zeros(2, TINY.places * 2, 2)
    for sweep in range(2):
        count = int(batch["num_matched"][sweep])
        at = batch["matched"][sweep, :count]
        scores[sweep, at, 0] = 9.0
        residuals[sweep, at] = batch["residuals"][sweep, :count]
        turned[sweep, at, batch["directions"][sweep, :count]] = 9.0
    found = driving_net.detect((scores, residuals, turned), TINY)
    num_boxes = [len(set(driving_data.generated(
        TINY, rng=np.random.default_rng((0, index, True)))[2][:, 0])) for index in range(2)
    ]  # fmt: skip
    assert (found["scores"] > 0.5).sum(1).tolist() == num_boxes
    assert float(driving_net.loss((scores, residuals, turned), batch)) < 0.05
    right = {"boxes": truth["truth"], "labels": truth["labels"], "scores": torch.ones(2, 64)}
    assert driving_net.quality(right, truth) == 1.0
    off = {**right, "boxes": truth["truth"] + 1.0}  # by more than a metre
    assert driving_net.quality(off, truth) == 0.0


# Files -------------------------------------------------------------------------------------------

VELODYNE_TO_CAMERA = "0 -1 0 0.1 0 0 -1 -0.1 1 0 0 -0.3"
CALIBRATION = f"""P0: 1 0 0 0 0 1 0 0 0 0 1 0
P2: 700 0 600 0 0 700 180 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: {VELODYNE_TO_CAMERA}

"""


def write_kitti(folder: Path, *, count: int = 10) -> Path:
    """Write generated roads as KITTI has them, boxes in the camera's axes."""
    for name in ("velodyne", "label_2", "calib"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        points, _, boxes = driving_data.generated(THREE, rng=np.random.default_rng(index))
        points.tofile(folder / "velodyne" / f"{index:06d}.bin")
        (folder / "calib" / f"{index:06d}.txt").write_text(CALIBRATION)
        lines = ["DontCare -1 -1 -10 1 1 2 2 -1 -1 -1 -1000 -1000 -1000 -10"]
        for x, y, z, length, width, height, yaw in boxes:
            place = f"{-y + 0.1} {-(z - height / 2) - 0.1} {x - 0.3}"
            lines.append(f"Car 0 0 0 1 1 2 2 {height} {width} {length} {place} {-yaw - np.pi / 2}")
        (folder / "label_2" / f"{index:06d}.txt").write_text("\n".join(lines))
    return folder


def test_a_kitti_folder_gives_its_boxes_in_the_axes_of_its_points(tmp_path: Path) -> None:
    data = write_kitti(tmp_path / "kitti" / "training").parent
    THREE.check_data(data)
    for index, frame in enumerate(frames(data)):
        points, _, boxes = driving_data.generated(THREE, rng=np.random.default_rng(index))
        names, found = frame.boxes()
        assert names == ["Car"] * len(boxes)
        np.testing.assert_allclose(found[:, :6], boxes[:, :6], atol=1e-9)
        assert np.cos(found[:, 6] - boxes[:, 6]) == pytest.approx(1)
        seen = frame.points()
        right = (600 * (points[:, 0] - 0.3) + 700 * (0.1 - points[:, 1])) >= 0
        assert 0 < len(seen) < len(points) and right.sum() >= len(seen)
        assert {tuple(row) for row in seen} <= {tuple(row) for row in points}
    trained, held_out = (THREE.dataset(one, data=data, seed=0) for one in (TRAIN, INFER))
    assert len(trained) == 9 and len(held_out) == 1
    batch: Any = torch.utils.data.default_collate([trained[index] for index in range(4)])
    assert THREE.loss(THREE.build_net(), batch).isfinite()
    assert all(torch.equal(trained[1][key], trained[1][key]) for key in batch)


def test_a_bad_kitti_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_kitti(tmp_path / "kitti")
    names = ("label_2/000003.txt", "calib/000004.txt", "velodyne/000005.bin")
    label, calib, sweep = (data / name for name in names)
    good = "Car 0 0 0 1 1 2 2 1.5 1.6 3.9 1 2 3 0"
    for path, content, words in [
        (label, good[:-2], "000003.txt, line 1: 14 fields; a box of KITTI has 15"),
        (label, good.replace("1.6", "wide"), "line 1: not all are finite numbers"),
        (label, good.replace("1.6", "-1"), "line 1: a Car of 1.5 x -1.0 x 3.9 m"),
        (calib, CALIBRATION.replace("R0_rect", "R0"), "000004.txt lacks R0_rect"),
        (calib, CALIBRATION.replace("P2: 700", "P2:"), "line 2: P2 has 11 numbers"),
        (calib, CALIBRATION.replace(VELODYNE_TO_CAMERA, "0 " * 12), "are no rotation"),
        (sweep, "0123456789", "000005.bin has 10 bytes; points of 16"),
        (sweep, "", "000005.bin has 0 bytes"),
    ]:
        before = path.read_bytes()
        path.write_text(content)
        with pytest.raises(DataError, match=words):
            TINY.check_data(data)
        path.write_bytes(before)
    before = sweep.read_bytes()
    sweep.write_bytes(before[:16] + np.array([1, np.nan, 0, 0], np.float32).tobytes())
    with pytest.raises(DataError, match="000005.bin: point 1 is not finite"):
        TINY.check_data(data)
    sweep.write_bytes(before)
    label.write_text(
        "\n".join([good, good.replace("Car", "Ship"), good.replace("2 3 0", "2 99 0")])
    )
    used = TINY.data_used(TRAIN, data).words
    assert used.startswith("9 sweeps with ") and " boxes of Car; left out: " in used
    assert "; left out: 1 called Ship" in used and " outside of the grid" in used
    unknown = [path for path in label.parent.iterdir() if path != label]
    kept = [path.read_text() for path in unknown]
    for path in (label, *unknown):
        path.write_text(good.replace("Car", "Ship"))
    wanted = "no box to train on of Car on the grid of this size, .* left out: 9 called Ship; --set"
    TINY.check_data(data)
    with pytest.raises(DataError, match=wanted):
        TINY.data_used(TRAIN, data)
    assert TINY.data_used(INFER, data).words.startswith("1 sweeps with 0 boxes of Car; left out: 1")
    for path, text in zip(unknown, kept, strict=True):
        path.write_text(text)
    (data / "velodyne" / "000020.bin").mkdir()
    with pytest.raises(DataError, match="000020.bin is no file"):
        TINY.check_data(data)
    (data / "velodyne" / "000020.bin").rmdir()
    label.unlink()
    line = f"run --workload driving --size tiny --device cpu --data {data}"
    assert main(line.split()) == 2
    assert "000003.txt does not exist, but 000003.bin does" in capsys.readouterr().err
    for path in sorted((data / "velodyne").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match="holds 1 sweeps; 10 or more"):
        TINY.check_data(data)
    with pytest.raises(DataError, match="has no folder velodyne"):
        TINY.check_data(tmp_path)
