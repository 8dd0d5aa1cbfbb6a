"""PointPillars in plain torch, its loss, and how boxes are read from it.

Letters: B sweeps, P pillars, N points, F features, C channels, Y and X the grid, A anchors of a
sweep, K boxes kept, M anchors matched. A cell is a place on the grid as one number, y * X + x; cell
Y * X takes the pillars that a sweep lacks. Anchors are made where they are used, in fp32: in half a
precision a place would be half a metre off. Differs from the paper: suppression looks at the
distance of middles alone and keeps a box that no better one of its class is near, all at once, so
that no operator of a vendor's own is needed.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from workloads._driving.driving_cost import BOX, DIRECTIONS, FEATURES, LAYERS, PillarShape
from workloads._driving.driving_data import MIDDLE_M, SIZES_M

MOST_BOXES, NEAR_FRAC = 100, 0.5
"""Boxes of a sweep, and the share of a box's width within which it is another's copy."""
BOX_WEIGHT, DIRECTION_WEIGHT = 2.0, 0.2
"""https://arxiv.org/abs/1812.05784, equation 4."""
FOCAL_ALPHA, FOCAL_GAMMA, SMOOTH = 0.25, 2.0, 1 / 9
PRIOR_FRAC, HEAD_SD = 0.01, 0.01
"""Score of an untrained class head, and of heads' weights (https://arxiv.org/abs/1708.02002,
section 4.1)."""
NORM = {"eps": 1e-3, "momentum": 0.1}


def _normed(layer: nn.Module, channels: int) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(channels, **NORM), nn.ReLU(inplace=True)]  # type: ignore[arg-type]


class PointPillars(nn.Module):
    """Maps of classes, boxes and directions: (B, A, classes), (B, A, 7), (B, A, 2)."""

    def __init__(self, shape: PillarShape) -> None:
        super().__init__()
        self.shape, width = shape, shape.width
        self.linear = nn.Linear(FEATURES, width, bias=False)
        self.norm = nn.BatchNorm1d(width, **NORM)  # type: ignore[arg-type]
        self.blocks, self.raised = nn.ModuleList(), nn.ModuleList()
        before = width
        for stage, count in enumerate(LAYERS):
            parts: list[nn.Module] = []
            after = width << stage
            for number in range(count):
                stride = 1 if number else 2
                conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
                parts += _normed(conv, after)
                before = after
            self.blocks.append(nn.Sequential(*parts))
            factor = 1 << stage
            up = nn.ConvTranspose2d(after, 2 * width, factor, stride=factor, bias=False)
            self.raised.append(nn.Sequential(*_normed(up, 2 * width)))
        sizes = [shape.anchors * each for each in (shape.classes, BOX, DIRECTIONS)]
        self.heads = nn.ModuleList(nn.Conv2d(6 * width, size, 1) for size in sizes)
        for head in self.heads:
            nn.init.normal_(head.weight, std=HEAD_SD)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.heads[0].bias, math.log(PRIOR_FRAC / (1 - PRIOR_FRAC)))  # type: ignore[arg-type]

    def forward(self, points: Tensor, cells: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of points (B, P, N, F) whose pillars are at cells (B, P)."""
        features = self.linear(points)
        features = functional.relu(self.norm(features.flatten(0, 2)), inplace=True)
        pillars = features.view(*points.shape[:3], -1).amax(2)
        values = self.canvas(pillars, cells)
        stages = []
        for block, raised in zip(self.blocks, self.raised, strict=True):
            values = block(values)
            stages.append(raised(values))
        joined = torch.cat(stages, dim=1)
        # An anchor's numbers beside each other: B, Y, X, anchors x numbers.
        maps = (head(joined).permute(0, 2, 3, 1) for head in self.heads)
        each = (self.shape.classes, BOX, DIRECTIONS)
        return tuple(one.reshape(len(points), -1, n) for one, n in zip(maps, each, strict=True))

    def canvas(self, pillars: Tensor, cells: Tensor) -> Tensor:
        """Return pillars (B, P, C) in their places (B, C, Y, X)."""
        sweeps, _, channels = pillars.shape
        rows, columns = self.shape.grid
        flat = pillars.new_zeros(sweeps, rows * columns + 1, channels)
        sweep = torch.arange(sweeps, device=cells.device).unsqueeze(1)
        flat = flat.index_put((sweep, cells), pillars)
        return flat[:, :-1].transpose(1, 2).reshape(sweeps, channels, rows, columns)


def loss(maps: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Tensor:
    """Return focal, smooth-L1 and direction loss: of each sweep over its matched anchors, the mean.

    `labels` (B, A) is a class, the number of classes for background, -1 for what does not count.
    `matched` (B, M) are anchors with `residuals` (B, M, 7) and `directions` (B, M); `is_matched` is
    0 where a sweep has fewer.
    """
    scores, boxes, directions = (one.float() for one in maps)
    num_matched = batch["num_matched"].clamp(min=1)
    labels = batch["labels"].unsqueeze(2)
    classes = torch.arange(scores.shape[2], device=scores.device)
    wanted = (labels == classes).to(scores.dtype)
    focal = _focal(scores, wanted) * (labels >= 0)
    matched, is_there = batch["matched"], batch["is_matched"]
    found = boxes.gather(1, matched.unsqueeze(2).expand(-1, -1, BOX))
    turned = directions.gather(1, matched.unsqueeze(2).expand(-1, -1, DIRECTIONS))
    # Of a yaw the sine of the difference counts: a box and its reverse are one, but for direction.
    error = found - batch["residuals"]
    error = torch.cat([error[..., :-1], error[..., -1:].sin()], dim=2)
    size = error.abs()
    smooth = torch.where(size < SMOOTH, 0.5 * size.square() / SMOOTH, size - 0.5 * SMOOTH)
    crossed = functional.cross_entropy(
        turned.transpose(1, 2), batch["directions"], reduction="none"
    )
    of_boxes = (BOX_WEIGHT * smooth.sum(2) + DIRECTION_WEIGHT * crossed) * is_there
    each: Tensor = (focal.sum((1, 2)) + of_boxes.sum(1)) / num_matched
    return each.mean()


def _focal(scores: Tensor, wanted: Tensor) -> Tensor:
    entropy = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    right = torch.exp(-entropy)
    alpha = wanted * FOCAL_ALPHA + (1 - wanted) * (1 - FOCAL_ALPHA)
    return alpha * (1 - right) ** FOCAL_GAMMA * entropy


def anchors_of(places: Tensor, shape: PillarShape) -> Tensor:
    """Return the boxes (..., 7) of anchors by number: places row by row, classes, directions."""
    sizes = torch.tensor(SIZES_M[: shape.classes], device=places.device)
    middles = torch.tensor(MIDDLE_M[: shape.classes], device=places.device)
    at, kind = places // shape.anchors, places % shape.anchors // 2
    step_m, columns = 2 * shape.pillar_m, shape.grid[1] // 2
    x = (at % columns + 0.5) * step_m
    y = (at // columns + 0.5) * step_m - 0.5 * shape.grid[0] * shape.pillar_m
    yaw = places % 2 * (math.pi / 2)
    return torch.cat([torch.stack([x, y, middles[kind]], -1), sizes[kind], yaw.unsqueeze(-1)], -1)


def decoded(residuals: Tensor, anchors: Tensor, directions: Tensor) -> Tensor:
    """Return the boxes that residuals from anchors stand for, turned to the found direction."""
    diagonal = anchors[..., 3:5].square().sum(-1, keepdim=True).sqrt()
    flat = residuals[..., :2] * diagonal + anchors[..., :2]
    height = residuals[..., 2:3] * anchors[..., 5:6] + anchors[..., 2:3]
    sizes = residuals[..., 3:6].clamp(max=4).exp() * anchors[..., 3:6]
    yaw = residuals[..., 6] + anchors[..., 6]
    half = yaw - (yaw / math.pi).floor() * math.pi
    turned = (half + math.pi * directions.argmax(-1)).unsqueeze(-1)
    return torch.cat([flat, height, sizes, turned], dim=-1)


def detect(maps: tuple[Tensor, ...], shape: PillarShape) -> dict[str, Any]:
    """Return K boxes of each sweep, best first, with what suppression leaves of their scores."""
    scores, residuals, directions = (one.float() for one in maps)
    best, label = scores.sigmoid().max(2)
    top, places = best.topk(min(MOST_BOXES, best.shape[1]), dim=1)
    of_top = [one.gather(1, places.unsqueeze(2).expand(-1, -1, one.shape[2]))
              for one in (residuals, directions)]  # fmt: skip
    boxes = decoded(of_top[0], anchors_of(places, shape), of_top[1])
    labels = label.gather(1, places)
    middles, reach = boxes[..., :2], NEAR_FRAC * boxes[..., 4]
    gaps = (middles.unsqueeze(2) - middles.unsqueeze(1)).square().sum(3)
    is_copy = (gaps < reach.square().unsqueeze(2)) & (labels.unsqueeze(2) == labels.unsqueeze(1))
    is_copy = is_copy.tril(-1).any(2)  # of one with a better score
    kept = torch.where(is_copy, torch.zeros_like(top), top)
    return {"boxes": boxes, "scores": kept, "labels": labels, "maps": maps}


def quality(found: dict[str, Any], batch: dict[str, Tensor], *, within_m: float = 1.0) -> float:
    """Return the mean over classes of average precision, as nuScenes has it: by middles alone.

    A box is right where the nearest true middle of its sweep and class that no better box has taken
    is within a metre.
    """
    labels, precisions = batch["labels"], []
    for kind in sorted(set(labels[labels >= 0].tolist())):
        is_kind = (found["labels"] == kind) & (found["scores"] > 0)
        sweep, rank = is_kind.nonzero(as_tuple=True)
        order = found["scores"][sweep, rank].argsort(descending=True).tolist()
        is_free, rights = labels == kind, []
        num_true = int(is_free.sum())
        for at in order:
            middle = found["boxes"][sweep[at], rank[at], :2]
            gaps = (batch["truth"][sweep[at], :, :2] - middle).norm(dim=1)
            gaps[~is_free[sweep[at]]] = math.inf
            rights.append(bool(gaps.min() <= within_m))
            if rights[-1]:
                is_free[sweep[at], gaps.argmin()] = False
        right = torch.tensor(rights, dtype=torch.float64)
        precision = right.cumsum(0) / torch.arange(1, len(right) + 1)
        precisions.append(float((precision * right).sum()) / num_true)
    return sum(precisions) / len(precisions)
