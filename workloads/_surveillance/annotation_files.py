"""Frames with boxes, as COCO and WIDER FACE lay them out, read into one form. Torch-free.

COCO (cocodataset.org/#format-data): `annotations/instances_NAME.json`, pictures in `images`, in
`NAME` or in `images/NAME`. WIDER FACE (shuoyang1213.me/WIDERFACE): `wider_face_NAME_bbx_gt.txt`,
beside it or in `wider_face_split`, pictures in `WIDER_NAME/images` or in `images`. A file whose
name has `val` is held out from training; a single one serves as both. Left out and counted: crowds,
boxes that WIDER FACE calls invalid, boxes without extent, and frames that then have none.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated

import msgspec

from bench.core.errors import DataError
from bench.workload import UsedData
from workloads._pictures.picture_file import picture_size, read_whole

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the picture."""
KINDS = "annotations/instances_*.json (COCO) or wider_face_*_bbx_gt.txt (WIDER FACE)"
INVALID = 7
"""Place of WIDER FACE's mark on a line."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture with the boxes in it."""

    path: Path
    boxes: tuple[Box, ...]
    classes: tuple[int, ...]
    size: tuple[int, int] | None = None
    """Width and height as the annotations have them, where they do."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """What one file of annotations holds."""

    path: Path
    classes: tuple[str, ...]
    frames: tuple[Frame, ...]
    left_out: Counter[str]

    def used(self) -> UsedData:
        """Return how many frames are used, and why others and boxes are left out."""
        boxes, frames = sum(len(one.boxes) for one in self.frames), len(self.frames)
        others = "".join(f"; left out: {count} {what}" for what, count in self.left_out.items())
        words = f"{frames} frames with {boxes} boxes of {self.path.name}{others}"
        return UsedData(words=words, num_samples=frames)


class _Picture(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: Annotated[tuple[float, ...], msgspec.Meta(min_length=4, max_length=4)]
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int
    name: str


class _Coco(msgspec.Struct):
    images: list[_Picture]
    annotations: list[_Annotation]
    categories: Annotated[list[_Category], msgspec.Meta(min_length=1)]


def read_frames(root: Path, *, is_held_out: bool) -> Frames:
    """Read the annotations to train on, or those held out; `DataError` says what is wrong."""
    path = _annotations(root, is_held_out=is_held_out)
    found = _coco(root, path) if path.suffix == ".json" else _wider(root, path)
    if not found.frames:
        raise DataError(f"{path} has no frame with a box to learn from: {found.used().words}")
    return found


def check_folder(root: Path, *, classes: int) -> None:
    """Raise `DataError` for the first file that training or inference could not use."""
    for is_held_out in (False, True):
        found = read_frames(root, is_held_out=is_held_out)
        if len(found.classes) > classes:
            raise DataError(
                f"{found.path} has {len(found.classes)} classes, but the workload has"
                f" classes={classes}; add --set classes={len(found.classes)}"
            )
        for frame in found.frames:
            if not frame.path.is_file():
                raise DataError(f"{frame.path} is missing, a picture of {found.path}")
            size = picture_size(frame.path)
            if frame.size is not None and frame.size != size:
                real, stated = (f"{width} x {height}" for width, height in (size, frame.size))
                raise DataError(f"{frame.path} is {real} pixels, but {stated} in {found.path}")
            for left, top, right, bottom in frame.boxes:
                if left >= size[0] or top >= size[1] or right <= 0 or bottom <= 0:
                    box = f"a box from {left:g}, {top:g} to {right:g}, {bottom:g}"
                    seen = f"outside of its {size[0]} x {size[1]} pixels"
                    raise DataError(f"{found.path}: {box} of {frame.path.name} lies {seen}")
        read_whole(frame.path for frame in found.frames)


def _annotations(root: Path, *, is_held_out: bool) -> Path:
    if not root.is_dir():
        raise DataError(f"--data {root} is not a folder; it holds {KINDS}")
    every = sorted(
        [
            *root.glob("annotations/instances_*.json"),
            *root.glob("wider_face_*_bbx_gt.txt"),
            *root.glob("wider_face_split/wider_face_*_bbx_gt.txt"),
        ]
    )
    if not every:
        raise DataError(f"{root} has no {KINDS}")
    chosen = [path for path in every if ("_val" in path.name) == is_held_out] or every
    if len(chosen) > 1:
        names = ", ".join(path.name for path in chosen)
        raise DataError(f"{root} has several files of boxes to choose from ({names}); keep one")
    return chosen[0]


def _pictures(folders: Sequence[Path], first: str) -> Path:
    """Return the folder in which the first picture lies; without any, the first folder."""
    return next((one for one in folders if (one / first).is_file()), folders[0])


def _inside(folder: Path, name: str, *, named_in: Path) -> Path:
    """Return the picture of that name; `DataError` for a name that leaves the folder."""
    path = folder / name
    if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):
        raise DataError(f"{named_in} names a picture {name[:60]!r} outside of {folder}")
    return path


def _check_ids(ids: Sequence[int], *, what: str, path: Path) -> None:
    if repeated := [number for number, count in Counter(ids).items() if count > 1]:
        raise DataError(f"{path}: {what} id {repeated[0]} is there more than once")


def _corners(left: float, top: float, width: float, height: float) -> Box:
    return left, top, left + width, top + height


def _without_extent(box: Box) -> str:
    return "" if box[2] > box[0] and box[3] > box[1] else "boxes without extent"


def _coco(root: Path, path: Path) -> Frames:
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_Coco)
    except (msgspec.MsgspecError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not COCO's instances: {error}") from error
    name = path.stem.removeprefix("instances_")
    folders = (root / "images", root / name, root / "images" / name)
    folder = _pictures(folders, content.images[0].file_name if content.images else "")
    _check_ids([one.id for one in content.images], what="image", path=path)
    _check_ids([one.id for one in content.categories], what="category", path=path)
    numbers = {one.id: number for number, one in enumerate(content.categories)}
    boxes: dict[int, list[tuple[Box, int]]] = {one.id: [] for one in content.images}
    left_out = Counter[str]()
    for one in content.annotations:
        if one.image_id not in boxes or one.category_id not in numbers:
            what = "category" if one.image_id in boxes else "image"
            number = one.category_id if one.image_id in boxes else one.image_id
            raise DataError(f"{path}: an annotation names {what}_id {number}, which is not there")
        box = _corners(*one.bbox)
        if not all(map(isfinite, box)):
            raise DataError(f"{path}: a bbox of image_id {one.image_id} is not finite: {one.bbox}")
        if why := "crowds" if one.iscrowd else _without_extent(box):
            left_out[why] += 1
        else:
            boxes[one.image_id].append((box, numbers[one.category_id]))
    left_out["frames without a box"] = sum(not some for some in boxes.values())
    return Frames(
        path=path,
        classes=tuple(one.name for one in content.categories),
        left_out=+left_out,
        frames=tuple(
            Frame(
                path=_inside(folder, one.file_name, named_in=path),
                boxes=tuple(box for box, _ in boxes[one.id]),
                classes=tuple(number for _, number in boxes[one.id]),
                size=(one.width, one.height),
            )
            for one in content.images
            if boxes[one.id]
        ),
    )


def _wider(root: Path, path: Path) -> Frames:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error
    name = path.name.removeprefix("wider_face_").removesuffix("_bbx_gt.txt")
    folders = (root / f"WIDER_{name}" / "images", root / "images")
    folder = _pictures(folders, lines[0].strip() if lines else "")
    left_out = Counter[str]()
    entries = list(_wider_entries(path, lines, left_out=left_out))
    return Frames(
        path=path,
        classes=("face",),
        left_out=+left_out,
        frames=tuple(
            Frame(
                path=_inside(folder, picture, named_in=path),
                boxes=boxes,
                classes=(0,) * len(boxes),
            )
            for picture, boxes in entries
            if boxes
        ),
    )


def _wider_entries(
    path: Path, lines: list[str], *, left_out: Counter[str]
) -> Iterator[tuple[str, tuple[Box, ...]]]:
    """Yield pictures with their boxes: a name, a number, and so many lines (one if it is 0)."""
    at = 0
    while at < len(lines):
        picture, boxes = lines[at].strip(), []
        try:
            number = int(lines[at + 1])
            for line in lines[at + 2 : at + 2 + max(number, 1)] if number >= 0 else ():
                left, top, width, height, *marks = map(float, line.split())
                box = _corners(left, top, width, height)
                if not all(map(isfinite, box)):
                    raise ValueError
                is_invalid = len(marks) > INVALID - 4 and marks[INVALID - 4] == 1
                if why := "boxes called invalid" if is_invalid else _without_extent(box):
                    left_out[why] += min(number, 1)
                elif number:
                    boxes.append(box)
            if number < 0 or at + 2 + max(number, 1) > len(lines):
                raise ValueError
        except (ValueError, IndexError):
            raise DataError(
                f"{path}, from line {at + 1} ({picture[:60]!r}): it needs a picture's name, the"
                " number of its faces, and a line 'left top width height ...' of finite numbers"
                " for each"
            ) from None
        left_out["frames without a box"] += not boxes
        yield picture, tuple(boxes)
        at += 2 + max(number, 1)
