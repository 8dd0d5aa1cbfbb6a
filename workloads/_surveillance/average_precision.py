"""Average precision of detections at an overlap of one half (AP50), in plain numpy.

Per class the area under precision over recall, with precision made monotone, as COCO and VOC 2010
take it; then the mean over the classes that there are. A box is found by the surest detection that
overlaps it by half (intersection over union) and has not found another; all else is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

OVERLAP = 0.5
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Of one frame: corners (N, 4), classes (N); scores (N) where they were detected."""

    corners: Floats
    classes: npt.NDArray[np.int64]
    scores: Floats | None = None


def ap50(found: Sequence[Boxes], *, truth: Sequence[Boxes]) -> float:
    """Return the mean over the classes in `truth`, frame by frame in the same order."""
    classes = np.unique(np.concatenate([one.classes for one in truth]))
    return float(np.mean([_of_class(found, truth, number=int(one)) for one in classes]))


def _of_class(found: Sequence[Boxes], truth: Sequence[Boxes], *, number: int) -> float:
    scores, is_right = [], []
    for detected, real in zip(found, truth, strict=True):
        assert detected.scores is not None
        chosen = detected.classes == number
        order = np.argsort(-detected.scores[chosen], kind="stable")
        scores += list(detected.scores[chosen][order])
        is_right += _matches(detected.corners[chosen][order], real.corners[real.classes == number])
    num_real = sum(int((one.classes == number).sum()) for one in truth)
    order = np.argsort(-np.array(scores), kind="stable")
    right = np.cumsum(np.array(is_right, dtype=float)[order])
    precision = right / np.arange(1, len(right) + 1)
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    return float((monotone * np.diff(right, prepend=0.0)).sum() / num_real)


def _matches(detected: Floats, real: Floats) -> list[bool]:
    """Whether each detection, the surest first, finds a box that none before it has found."""
    free, found = np.ones(len(real), dtype=bool), []
    for box in detected:
        overlap = np.where(free, overlaps(box, real), 0.0)
        best = int(overlap.argmax()) if len(real) else 0
        found.append(bool(len(real) and overlap[best] >= OVERLAP))
        if found[-1]:
            free[best] = False
    return found


def overlaps(box: Floats, others: Floats) -> Floats:
    """Return intersection over union of one box with each of the others."""
    inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    inside = np.prod(np.maximum(inner, 0.0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    return np.asarray(inside / (np.prod(box[2:] - box[:2]) + areas - inside))
