"""Frames with boxes: generated, or those of COCO or WIDER FACE.

A generated frame is noise with one to `objects` rectangles; a rectangle's class is its colour, of
as many hues as there are classes. Frames of files are stretched to the net's square, as RT-DETR
does, and mirrored at random in training; its other augmentation is left out. A sample is a dict of
`frame` (3, side, side) from 0 to 1, `boxes` (N, 4) as centre and size in parts of the frame, and
`class_labels` (N). It depends on (seed, index) alone.
"""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workloads._pictures.picture_file import picture_size, read_picture
from workloads._surveillance.annotation_files import Frame, read_frames
from workloads._surveillance.detection_shape import DetectorShape

NUM_GENERATED = 1 << 16
NOISE = 0.2
SMALLEST, LARGEST = 0.2, 0.5
"""Sides of a rectangle, in parts of the frame."""

Sample = dict[str, torch.Tensor]


class GeneratedFrames(Sequence[Sample]):
    """Coloured rectangles on noise, each frame made on demand."""

    def __init__(self, shape: DetectorShape, *, seed: int) -> None:
        self.shape, self.seed = shape, seed
        hues = (number / shape.classes for number in range(shape.classes))
        self._colours = np.array([colorsys.hsv_to_rgb(hue, 1, 1) for hue in hues], dtype=np.float32)

    def __len__(self) -> int:
        return NUM_GENERATED

    def __getitem__(self, index: Any) -> Any:
        rng = np.random.default_rng((self.seed, range(len(self))[index]))
        side = self.shape.pixels
        frame = 0.5 + NOISE * rng.standard_normal((3, side, side), dtype=np.float32)
        count = int(rng.integers(1, self.shape.objects + 1))
        classes = rng.integers(self.shape.classes, size=count)
        sizes = rng.uniform(SMALLEST, LARGEST, size=(count, 2))
        centres = rng.uniform(sizes / 2, 1 - sizes / 2)
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
        pixels = np.round(corners * side).astype(int)
        for (left, top, right, bottom), number in zip(pixels, classes, strict=True):
            # A rectangle keeps the noise, so that it is no flat colour.
            frame[:, top:bottom, left:right] += self._colours[number][:, None, None] - 0.5
        return _sample(frame, boxes=pixels / side, classes=classes)


class FolderFrames(Sequence[Sample]):
    """Frames of files; those to train on are mirrored at random."""

    def __init__(self, frames: Sequence[Frame], *, side: int, is_held_out: bool, seed: int) -> None:
        self.frames, self.side, self.seed = frames, side, seed
        self.mirrored_frac = 0.0 if is_held_out else 0.5

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: Any) -> Any:
        frame = self.frames[index]
        rng = np.random.default_rng((self.seed, range(len(self))[index]))
        picture = read_picture(frame.path, size=(self.side, self.side))
        boxes = np.clip(np.array(frame.boxes) / np.tile(picture_size(frame.path), 2), 0, 1)
        if rng.random() < self.mirrored_frac:
            picture = picture[:, ::-1].copy()
            boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
        colours = picture.transpose(2, 0, 1).astype(np.float32) / 255
        return _sample(colours, boxes=boxes, classes=np.array(frame.classes))


def _sample(frame: Any, *, boxes: Any, classes: Any) -> Sample:
    """Return a sample from corners in parts of the frame."""
    first, last = boxes[:, :2], boxes[:, 2:]
    centred = np.concatenate([(first + last) / 2, last - first], axis=1).astype(np.float32)
    return {
        "frame": torch.from_numpy(np.ascontiguousarray(frame)),
        "boxes": torch.from_numpy(centred),
        "class_labels": torch.from_numpy(classes.astype(np.int64)),
    }


def samples(
    shape: DetectorShape, *, data: Path | None, is_held_out: bool, seed: int
) -> Sequence[Sample]:
    """Return generated frames, or those of a folder."""
    if data is None:
        return GeneratedFrames(shape, seed=seed)
    frames = read_frames(data, is_held_out=is_held_out).frames
    return FolderFrames(frames, side=shape.pixels, is_held_out=is_held_out, seed=seed)


def together(samples: list[Sample]) -> dict[str, Any]:
    """Return a batch: frames stacked, the boxes of each in a dict of its own."""
    names = ("boxes", "class_labels")
    return {
        "frames": torch.stack([one["frame"] for one in samples]),
        "labels": [{name: one[name] for name in names} for one in samples],
    }
