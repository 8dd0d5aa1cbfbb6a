"""Sweeps as pillars, and anchors matched to boxes, from KITTI files or generated, alike.

Generated: a road with noise, and boxes of the classes' sizes whose surfaces reflect. A sample has a
fixed number of pillars and points, padded with zeros, so that shapes are static; pillars that lack
lie in a cell of their own. Anchors are matched to boxes here, on the CPU, by the overlap seen from
above of boxes along the axes (https://arxiv.org/abs/1812.05784, section 3.2; the thresholds are its
own). Left out: augmentation. A sample depends on (seed, index) alone.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from workloads._driving.driving_cost import CLASSES, FEATURES, PillarShape
from workloads._driving.kitti_files import KittiFrame, chosen, why_left_out

Floats = npt.NDArray[np.float64]
NUM_SWEEPS = 1024
SIZES_M = (
    (3.9, 1.6, 1.56), (0.8, 0.6, 1.73), (1.76, 0.6, 1.73), (10.1, 2.6, 3.2), (5.1, 1.9, 2.2),
    (16.0, 2.5, 3.5), (11.0, 2.9, 3.5), (12.3, 2.9, 3.9), (2.1, 0.8, 1.5), (0.8, 0.6, 1.3),
)  # fmt: skip
"""Length, width and height of each class's anchors; the first three are the paper's."""
GROUND_M = -1.73
"""The road below KITTI's lidar."""
MIDDLE_M = tuple(GROUND_M + height / 2 for _, _, height in SIZES_M)
LOWEST_M, HIGHEST_M = -3.0, 1.0
MATCH_FRAC = tuple(0.6 if length > 3 else 0.5 for length, _, _ in SIZES_M)
UNSURE_FRAC = 0.15
"""An anchor overlapping by so much less than a match is neither match nor background."""
MOST_MATCHED, MOST_TRUE = 512, 64
"""Anchors of a sweep whose boxes are trained on, and boxes that are kept to judge by."""
AREA_M2, MOST_BOXES, BOX_POINTS = 50, 12, 256
"""Of generated sweeps: road for each box, boxes at most, points of each."""


class Sweeps(Sequence[dict[str, torch.Tensor]]):
    """Pillars of sweeps, with matched anchors to train on, or the boxes to be found."""

    def __init__(
        self, shape: PillarShape, *, frames: list[KittiFrame] | None, seed: int, is_training: bool
    ) -> None:
        self._shape, self._frames = shape, frames
        self._seed, self._is_training = seed, is_training

    def __len__(self) -> int:
        return NUM_SWEEPS if self._frames is None else len(self._frames)

    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        rng = np.random.default_rng((self._seed, index, self._is_training))
        if self._frames is None:
            points, kinds, boxes = generated(self._shape, rng=rng)
        else:
            points, kinds, boxes = _of_frame(self._frames[index], shape=self._shape)
        filled, cells = pillars(points, shape=self._shape, rng=rng)
        inputs = {"points": torch.from_numpy(filled), "cells": torch.from_numpy(cells)}
        if self._is_training:
            return inputs | matched(kinds, boxes, shape=self._shape)
        truth, labels = np.zeros((MOST_TRUE, 7), np.float32), np.full(MOST_TRUE, -1)
        count = min(len(boxes), MOST_TRUE)
        truth[:count], labels[:count] = boxes[:count], kinds[:count]
        return inputs | {"truth": torch.from_numpy(truth), "labels": torch.from_numpy(labels)}


def sweeps(shape: PillarShape, *, data: Path | None, seed: int, is_training: bool) -> Sweeps:
    """Return sweeps to train on, or others."""
    frames = None if data is None else chosen(data, is_training=is_training)
    return Sweeps(shape, frames=frames, seed=seed, is_training=is_training)


def _of_frame(frame: KittiFrame, *, shape: PillarShape) -> tuple[Any, Any, Floats]:
    """Return a sweep's points, and the boxes of the net's classes whose middle is on the grid."""
    names, boxes = frame.boxes()
    reasons = why_left_out(names, boxes, shape=shape)
    taken = [at for at, why in enumerate(reasons) if not why]
    kinds = np.array([CLASSES.index(names[at]) for at in taken], dtype=np.int64)
    return frame.points(), kinds, boxes[taken]


def generated(shape: PillarShape, *, rng: np.random.Generator) -> tuple[Any, Any, Floats]:
    """Return points (n, 4), kinds and boxes of a road with things that stand on it."""
    ahead_m, side_m = shape.extent_m
    most = int(np.clip(2 * ahead_m * side_m / AREA_M2, 2, MOST_BOXES))
    kinds, boxes = [], np.zeros((0, 7))
    for _ in range(rng.integers(1, most + 1)):
        kind = int(rng.integers(shape.classes))
        place = np.array([rng.uniform(0, ahead_m), rng.uniform(-side_m, side_m)])
        size = np.array(SIZES_M[kind]) * rng.uniform(0.9, 1.1, 3)
        apart = np.linalg.norm(boxes[:, :2] - place, axis=1)
        if (apart < (np.linalg.norm(boxes[:, 3:5], axis=1) + np.hypot(*size[:2])) / 2).any():
            continue
        box = [*place, GROUND_M + size[2] / 2, *size, rng.uniform(-math.pi, math.pi)]
        kinds.append(kind)
        boxes = np.append(boxes, [box], axis=0)
    count = 2 * shape.pillars
    reach, angle = rng.uniform(0, 1.2 * ahead_m, count), rng.uniform(-0.8, 0.8, count)
    height = GROUND_M + rng.normal(0, 0.03, count)
    road = np.stack([reach * np.cos(angle), reach * np.sin(angle), height, rng.random(count) / 4])
    points = np.concatenate([road.T, *(_surface(box, rng=rng) for box in boxes)])
    return points.astype(np.float32), np.array(kinds, dtype=np.int64), boxes


def _surface(box: Floats, *, rng: np.random.Generator) -> Floats:
    """Return points (n, 4) on the sides of a box."""
    inside = rng.uniform(-0.5, 0.5, (BOX_POINTS, 3))
    side = rng.integers(3, size=BOX_POINTS)
    rows = np.arange(BOX_POINTS)
    inside[rows, side] = np.where(inside[rows, side] < 0, -0.5, 0.5)
    x, y, z = (inside * box[3:6]).T
    cos, sin = math.cos(box[6]), math.sin(box[6])
    # The front reflects more, so that direction can be learned.
    reflectance = np.where(x > 0.25 * box[3], 1.0, 0.5)
    return np.stack([cos * x - sin * y + box[0], sin * x + cos * y + box[1], z + box[2],
                     reflectance], axis=1)  # fmt: skip


def pillars(points: Any, *, shape: PillarShape, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return features (P, N, 9) of the points in each pillar, and the pillars' cells (P,)."""
    rows, columns = shape.grid
    points = points[rng.permutation(len(points))]
    column = np.floor(points[:, 0] / shape.pillar_m).astype(np.int64)
    row = np.floor(points[:, 1] / shape.pillar_m + rows / 2).astype(np.int64)
    is_on = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    is_on &= (points[:, 2] >= LOWEST_M) & (points[:, 2] < HIGHEST_M)
    points, cell = points[is_on], (row * columns + column)[is_on]
    order = np.argsort(cell, kind="stable")
    points, cell = points[order], cell[order]
    found, first, counts = np.unique(cell, return_index=True, return_counts=True)
    rank = np.arange(len(cell)) - np.repeat(first, counts)
    kept = np.sort(rng.permutation(len(found))[: shape.pillars])
    number = np.full(len(found), -1)
    number[kept] = np.arange(len(kept))
    pillar = np.repeat(number, counts)
    is_taken = (pillar >= 0) & (rank < shape.points)
    place = pillar[is_taken], rank[is_taken]
    features = np.zeros((shape.pillars, shape.points, FEATURES), np.float32)
    features[place[0], place[1], :4] = points[is_taken]
    held = np.minimum(counts[kept], shape.points)
    mean = features[: len(kept), :, :3].sum(1) / held[:, None]
    features[place[0], place[1], 4:7] = points[is_taken, :3] - mean[place[0]]
    cells = np.full(shape.pillars, rows * columns)
    cells[: len(kept)] = found[kept]
    middle = np.stack([cells % columns + 0.5, cells // columns + 0.5 - rows / 2], axis=1)
    middle = middle * shape.pillar_m
    features[place[0], place[1], 7:9] = points[is_taken, :2] - middle[place[0]]
    return features, cells


def matched(kinds: Any, boxes: Floats, *, shape: PillarShape) -> dict[str, torch.Tensor]:
    """Return what each anchor is, and of those that match a box how it differs from the anchor."""
    labels = np.full((shape.places, shape.classes, 2), shape.classes)
    owner = np.full((shape.places, shape.classes, 2), -1)
    for kind in np.unique(kinds):
        of_kind = np.flatnonzero(kinds == kind)
        overlap = overlaps(boxes[of_kind], kind=kind, shape=shape)
        best = overlap.max(2)
        labels[:, kind][best > MATCH_FRAC[kind] - UNSURE_FRAC] = -1
        is_match = best >= MATCH_FRAC[kind]
        labels[:, kind][is_match] = kind
        owner[:, kind][is_match] = of_kind[overlap.argmax(2)[is_match]]
        for at, box in enumerate(of_kind):  # a box's best anchor is its own, however far
            place, turn = np.unravel_index(overlap[..., at].argmax(), best.shape)
            labels[place, kind, turn], owner[place, kind, turn] = kind, box
    flat = owner.ravel()
    anchors = np.flatnonzero(flat >= 0)[:MOST_MATCHED]
    target: dict[str, Any] = {
        "matched": np.zeros(MOST_MATCHED, np.int64),
        "is_matched": np.zeros(MOST_MATCHED, np.float32),
        "residuals": np.zeros((MOST_MATCHED, 7), np.float32),
        "directions": np.zeros(MOST_MATCHED, np.int64),
    }
    of_anchor = boxes[flat[anchors]]
    target["matched"][: len(anchors)] = anchors
    target["is_matched"][: len(anchors)] = 1
    target["residuals"][: len(anchors)] = residuals(of_anchor, anchors, shape=shape)
    target["directions"][: len(anchors)] = of_anchor[:, 6] % (2 * math.pi) >= math.pi
    tensors = {name: torch.from_numpy(array) for name, array in target.items()}
    tensors["num_matched"] = torch.tensor(len(anchors))
    return tensors | {"labels": torch.from_numpy(labels.reshape(-1))}


def anchors_of(numbers: Any, *, shape: PillarShape) -> Floats:
    """Return anchors (n, 7) by number: places row by row, then classes, then directions."""
    place, kind = numbers // shape.anchors, numbers % shape.anchors // 2
    columns, step_m = shape.grid[1] // 2, 2 * shape.pillar_m
    x = (place % columns + 0.5) * step_m
    y = (place // columns + 0.5) * step_m - shape.extent_m[1]
    sizes, middles = np.array(SIZES_M)[kind], np.array(MIDDLE_M)[kind]
    yaw = numbers % 2 * (math.pi / 2)
    return np.concatenate([np.stack([x, y, middles], 1), sizes, yaw[:, None]], axis=1)


def overlaps(boxes: Floats, *, kind: int, shape: PillarShape) -> Floats:
    """Return (places, 2, boxes): intersection over union from above, all turned to an axis."""
    numbers = np.arange(shape.places)[:, None] * shape.anchors + 2 * kind + np.arange(2)
    anchors = anchors_of(numbers.ravel(), shape=shape).reshape(*numbers.shape, 1, 7)
    boxes = boxes[None, None]
    inside = 1.0
    for axis in (0, 1):
        sides = [_side_m(one, axis=axis) / 2 for one in (anchors, boxes)]
        middles = anchors[..., axis], boxes[..., axis]
        high = np.minimum(middles[0] + sides[0], middles[1] + sides[1])
        low = np.maximum(middles[0] - sides[0], middles[1] - sides[1])
        inside = inside * np.maximum(high - low, 0)
    areas = [one[..., 3] * one[..., 4] for one in (anchors, boxes)]
    return np.asarray(inside / (areas[0] + areas[1] - inside))


def _side_m(boxes: Floats, *, axis: int) -> Floats:
    """Return the size along an axis of boxes turned to the nearest one."""
    is_across = np.abs(np.sin(boxes[..., 6])) > math.sqrt(0.5)
    return np.where(is_across, boxes[..., 4 - axis], boxes[..., 3 + axis])


def residuals(boxes: Floats, numbers: Any, *, shape: PillarShape) -> Floats:
    """Return how boxes differ from their anchors (https://arxiv.org/abs/1812.05784, equation 2)."""
    anchors = anchors_of(numbers, shape=shape)
    diagonal = np.hypot(anchors[:, 3], anchors[:, 4])[:, None]
    flat = (boxes[:, :2] - anchors[:, :2]) / diagonal
    height = (boxes[:, 2:3] - anchors[:, 2:3]) / anchors[:, 5:6]
    return np.concatenate([flat, height, np.log(boxes[:, 3:6] / anchors[:, 3:6]),
                           boxes[:, 6:] - anchors[:, 6:]], axis=1)  # fmt: skip
