"""dataset.json of the Medical Segmentation Decathlon and of nnU-Net v2, read into one form.

Decathlon (http://medicaldecathlon.com, arXiv:1902.09063): "modality" and "labels" are names by
number, and "training" lists pairs of files. nnU-Net v2
(https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md): "channel_names",
numbers by name in "labels" (a region is a list of numbers), and, where there is no list, the files
of imagesTr and labelsTr, an image a channel. A file may be of both kinds, as converted ones are.
A region's numbers are learnt as classes of their own. Images and labels are not opened here.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bench.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Case:
    """One volume with its label, which a test image lacks."""

    images: tuple[Path, ...]
    """One file with all channels, or one a channel."""
    label: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file of it."""
        return (*self.images, *filter(None, [self.label]))


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What dataset.json says: names of the classes and of the channels in order, and cases."""

    classes: tuple[str, ...]
    channels: tuple[str, ...]
    training: tuple[Case, ...]
    test: tuple[Case, ...] = ()

    def split(self, cases: int | None = None) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Return at most `cases` to train on and as many, others, to infer; None: all of both.

        Inferred is every fifth, as held out in nnU-Net's five-fold split, and then the test images.
        A folder of one case and no test image serves as both.
        """
        rest = tuple(case for index, case in enumerate(self.training) if index % 5)
        held_out = (*self.training[::5], *self.test) if rest else self.test or self.training
        return (rest or self.training)[:cases], held_out[:cases]


class _Pair(msgspec.Struct):
    image: str
    label: str


class _Channels(msgspec.Struct):
    images: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    label: str


_Names = Annotated[dict[str, str], msgspec.Meta(min_length=1)]
_Labels = Annotated[dict[str, str | int | tuple[int, ...]], msgspec.Meta(min_length=1)]


class _Content(msgspec.Struct):
    """The keys of dataset.json that are read, of either kind; what is not there is empty."""

    labels: _Labels
    modality: _Names = {}
    channel_names: _Names = {}
    training: Annotated[tuple[_Pair, ...], msgspec.Meta(min_length=1)] = ()
    dataset: Annotated[dict[str, _Channels], msgspec.Meta(min_length=1)] = {}
    file_ending: str = ".nii.gz"
    num_training: Any = msgspec.field(default=None, name="numTraining")


_DECATHLON = (
    'it needs "labels" and "modality", such as {"0": "background"}, and "training", a list of'
    ' {"image": ..., "label": ...}; or the keys of nnU-Net v2'
)
_NNUNET = (
    'this is nnU-Net v2: it needs "channel_names", such as {"0": "CT"}, "labels", such as'
    ' {"background": 0, "tumour": 1}, and "file_ending"'
)


def read_folder(root: Path) -> Folder:
    """Read dataset.json; `DataError` says what is missing or wrong in it."""
    path = root / "dataset.json"
    if not root.is_dir():
        raise DataError(f"--data {root} is not a folder; a Decathlon folder holds dataset.json")
    if not path.is_file():
        raise DataError(f"{path} is missing; `bench data phantom OUT` writes a valid folder")
    document = _document(path)
    try:
        content = msgspec.convert(document, type=_Content)
        channels = _channel_names(content)
        classes = _class_names(content.labels)
        training = _cases(content, root=root, num_channels=len(channels))
        test = _test_cases(content, root=root, num_channels=len(channels))
    except msgspec.ValidationError as error:
        is_nnunet = isinstance(document, dict) and "channel_names" in document
        raise DataError(f"{path}: {error}; {_NNUNET if is_nnunet else _DECATHLON}") from error
    except ValueError as error:  # a surrogate in a name as well
        raise DataError(f"{path}: {error}") from error
    return Folder(classes=classes, channels=channels, training=training, test=test)


def _document(path: Path) -> Any:
    """Parse the file in whichever of JSON's encodings it is, with or without a BOM."""
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        line = error.doc.split("\n")[error.lineno - 1].strip()
        before, rest = error.doc[: error.pos].rstrip(), error.doc[error.pos :]
        hint = ""
        if before.endswith(",") and rest.startswith(("}", "]")):
            comma = before.count("\n") + 1
            hint = f"; take out the comma at the end of line {comma}"
        elif rest.startswith(("#", "//", "/*")):
            hint = "; JSON has no comments"
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}: {line[:60]!r}{hint}"
    except UnicodeDecodeError as error:
        line_number = error.object[: error.start].count(b"\n") + 1
        reason = f"line {line_number}: not {error.encoding} text; save the file as UTF-8"
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise DataError(f"{path} is not readable JSON: {reason}")


def _channel_names(content: _Content) -> tuple[str, ...]:
    for key in ("channel_names", "modality"):
        if names := getattr(content, key):
            return _in_order(names, key=key)
    raise ValueError('it has no "modality" (Decathlon) and no "channel_names" (nnU-Net v2)')


def _in_order(names: Mapping[str, str], *, key: str) -> tuple[str, ...]:
    """Return the names by number; `ValueError` where a number is missing."""
    numbers = list(map(str, range(len(names))))
    if names.keys() != set(numbers):
        missing = next(number for number in numbers if number not in names)
        what = "the background, 0, is missing" if missing == "0" else f"{missing} is missing"
        raise ValueError(
            f'"{key}" must be numbered from 0 without gaps; it has {", ".join(names)}: {what}'
        )
    return tuple(names[number] for number in numbers)


def _class_names(labels: Mapping[str, str | int | tuple[int, ...]]) -> tuple[str, ...]:
    names = {number: name for number, name in labels.items() if isinstance(name, str)}
    if len(names) == len(labels):
        return _in_order(names, key="labels")
    if names:
        raise ValueError(
            '"labels" mixes names by number (Decathlon: {"1": "organ"}) and numbers by name'
            ' (nnU-Net v2: {"organ": 1})'
        )
    if "ignore" in labels:
        raise ValueError(
            'this is nnU-Net v2 with a label "ignore", which is not supported: leave out the cases'
            " with such voxels and the label, or give them a class of their own"
        )
    numbers = {
        name: value if isinstance(value, tuple) else (value,)
        for name, value in labels.items()
        if not isinstance(value, str)
    }
    # The smallest region that a number is in names it; a label of its own is the smallest.
    for name in sorted(numbers, key=lambda name: -len(numbers[name])):
        names |= dict.fromkeys(map(str, numbers[name]), name)
    single = [value for value in labels.values() if isinstance(value, int)]
    if len(set(single)) < len(single):
        raise ValueError('nnU-Net v2\'s "labels" gives two names one number')
    return _in_order(names, key="labels")


# Cases -----------------------------------------------------------------------------------------


def _cases(content: _Content, *, root: Path, num_channels: int) -> tuple[Case, ...]:
    """Return the cases that are listed, or those whose files are there."""
    if content.dataset:
        listed = [(entry.images, entry.label) for entry in content.dataset.values()]
    elif content.training:
        listed = [((entry.image,), entry.label) for entry in content.training]
    else:
        return _found(content, root=root, num_channels=num_channels)
    cases = []
    for names, label in listed:
        # Written on Windows.
        images = tuple(root / name.replace("\\", "/") for name in names)
        apart = _apart(images[0], num_channels=num_channels)
        # Only nnU-Net's files may be there.
        if len(images) == 1 and not os.path.isfile(images[0]) and os.path.isfile(apart[0]):
            images = apart
        cases.append(Case(images=images, label=root / label.replace("\\", "/")))
    (images, count), *_ = Counter(case.images for case in cases).most_common(1)
    if count > 1:
        raise ValueError(
            f"it lists {images[0].name} twice, so that a case could be trained on and held out"
        )
    return tuple(cases)


def _apart(image: Path, *, num_channels: int) -> tuple[Path, ...]:
    """Return nnU-Net's files of CASE.nii.gz: CASE_0000.nii.gz and further, one a channel."""
    stem, dot, ending = image.name.rpartition(".nii")
    names = (f"{stem}_{number:04d}{dot}{ending}" for number in range(num_channels))
    return tuple(map(image.with_name, names))


def _names(folder: Path, *, ending: str) -> list[str]:
    """Names of the files with this ending; none that begins with a dot, as macOS adds some."""
    return sorted(path.name.removesuffix(ending) for path in folder.glob(f"[!.]*{ending}"))


def _test_cases(content: _Content, *, root: Path, num_channels: int) -> tuple[Case, ...]:
    """Return the images of imagesTs, listed or not: one file each, or one a channel."""
    folder, ending = root / "imagesTs", content.file_ending
    numbered = _names(folder, ending=f"_0000{ending}")
    images = [folder / f"{name}{ending}" for name in numbered or _names(folder, ending=ending)]
    apart = [_apart(one, num_channels=num_channels) if numbered else (one,) for one in images]
    return tuple(Case(images=files) for files in apart)


def _found(content: _Content, *, root: Path, num_channels: int) -> tuple[Case, ...]:
    ending = content.file_ending
    if f".{ending}" in (".nii.gz", ".nii"):
        raise ValueError(f'"file_ending" {ending!r} lacks its dot; write ".{ending}"')
    if ending not in (".nii.gz", ".nii"):
        raise ValueError(
            f'this is nnU-Net v2 with "file_ending" {ending!r}, which is not read; convert images'
            ' and labels to .nii.gz, and change "file_ending"'
        )
    last, images = f"_0000{ending}", root / "imagesTr"
    names = _names(images, ending=last)
    if not names:
        raise ValueError(
            f'it has no "training" list, so this is nnU-Net v2, whose images are called'
            f" CASE{last} (0000 is the channel); {images} holds none"
        )
    if isinstance(content.num_training, int) and content.num_training != len(names):
        raise ValueError(
            f'this is nnU-Net v2 and says "numTraining" {content.num_training}, but imagesTr holds'
            f" {len(names)} cases; files are missing, or the number is to be changed"
        )
    return tuple(
        Case(
            images=_apart(images / f"{name}{ending}", num_channels=num_channels),
            label=root / "labelsTr" / f"{name}{ending}",
        )
        for name in names
    )
