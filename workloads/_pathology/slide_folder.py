"""A folder of tiled slides: a folder of tiles for each slide, and labels.csv. No torch.

It is what CLAM and TIAToolbox users have after tiling: `labels.csv` with the columns `slide_id` and
`label` (a number or a word), and a folder `slide_id` of tiles, PNG or JPEG. Every fifth slide of a
label is held out of training and is what is inferred. Tiles of another size are resized.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import DataError
from workloads._pictures.picture_file import SUFFIXES, pictures_in, read_whole

LABELS = "labels.csv"
EVERY_HELD_OUT = 5


@dataclass(frozen=True, kw_only=True)
class Slide:
    """One slide's tiles, in the order of their names, and its label."""

    name: str
    label: int
    tiles: Sequence[Path]


def read_slides(folder: Path, *, classes: int) -> list[Slide]:
    """Return all slides; `DataError` names the file or folder that cannot be used."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give one with {LABELS} and a folder a slide")
    rows = _labels(folder / LABELS)
    # Numbers in their order, without reading one of thousands of digits.
    words = sorted(set(rows.values()), key=lambda word: (word.isdecimal() and len(word), word))
    if len(words) > classes:
        shown = ", ".join(word[:20] for word in words[:5])
        raise DataError(
            f"{folder / LABELS} has {len(words)} labels ({shown}), this net {classes} classes; "
            f"--set classes={len(words)}"
        )
    slides = [
        Slide(name=name, label=words.index(word), tiles=_tiles(folder / name))
        for name, word in rows.items()
    ]
    if len(slides) < 2:
        raise DataError(f"{folder / LABELS} names one slide; two or more, since one is held out")
    return slides


def split(slides: Sequence[Slide], *, is_training: bool) -> list[Slide]:
    """Return the slides to train on, or those held out: of each label every fifth."""
    seen: dict[int, int] = {}
    held_out = []
    for slide in slides:
        if seen.setdefault(slide.label, 0) % EVERY_HELD_OUT == 0:
            held_out.append(slide)
        seen[slide.label] += 1
    # A label with one slide is trained on, unless nothing else would be held out.
    held_out = [one for one in held_out if seen[one.label] > 1] or held_out[:1]
    return [one for one in slides if (one not in held_out) == is_training]


def used_words(folder: Path, *, classes: int, is_training: bool) -> str:
    """Say how many slides are trained on, or held out; `DataError` where nothing is learned."""
    every = read_slides(folder, classes=classes)
    if is_training and len({slide.label for slide in every}) < 2:
        raise DataError(
            f"{folder / LABELS} has one label alone: nothing can be learned; give two or more"
        )
    what = "to train on" if is_training else "held out"
    return f"slides {what}, {len(split(every, is_training=is_training))} of {len(every)}"


def most_tiles(folder: Path, *, classes: int) -> int:
    """Return the tiles of the slide that has most of those held out."""
    slides = split(read_slides(folder, classes=classes), is_training=False)
    return max(len(slide.tiles) for slide in slides)


def check_slides(folder: Path, *, classes: int) -> None:
    """Read what would be used: the labels, the names of all tiles, and tiles, each first one first.

    As many tiles as a check reads of any folder; a broken one behind them is named when it is met.
    """
    slides = read_slides(folder, classes=classes)
    read_whole([slide.tiles[0] for slide in slides])
    read_whole(tile for slide in slides for tile in slide.tiles[1:])


def _labels(path: Path) -> dict[str, str]:
    """Return the label of each slide as written."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; it has a line slide_id,label for each slide")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    if missing := [name for name in ("slide_id", "label") if name not in columns]:
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}: its first line is "
            f"{','.join(columns)!r}; it has to be slide_id,label"
        )
    labels: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        name, word = (row["slide_id"] or "").strip(), (row["label"] or "").strip()
        is_path = name == ".." or Path(name).name != name
        if not name or not word or name in labels or is_path:
            what = "twice" if name in labels else "without a label" if name else "without a name"
            what = "by a path" if name and is_path else what
            raise DataError(f"{path}, line {number}: names slide {name!r} {what}")
        labels[name] = word
    if not labels:
        raise DataError(f"{path} names no slide")
    return labels


def _tiles(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder, though {LABELS} names the slide {folder.name}")
    tiles = pictures_in(folder)
    if not tiles:
        raise DataError(f"{folder} has no tiles: {', '.join(SUFFIXES)}")
    return tiles
