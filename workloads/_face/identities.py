"""Folders of faces, one a person, as LFW and CASIA-WebFace are laid out. Torch-free.

`ROOT/NAME/*.jpg`: square pictures of aligned faces, all of one size. Of each person every fifth
picture is held out; where nobody has five, all pictures serve as both. Names are never shown.
"""

from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import DataError
from bench.workload import UsedData
from workloads._pictures.picture_file import picture_size, pictures_in, read_whole

EVERY_HELD_OUT = 5


@dataclass(frozen=True, kw_only=True)
class Face:
    """One picture and whose it is, by number."""

    path: Path
    identity: int


def read_identities(root: Path) -> tuple[tuple[Path, ...], ...]:
    """Return the pictures of each person; `DataError` says what is wrong with the folder."""
    if not root.is_dir():
        raise DataError(f"--data {root} is not a folder; it holds one folder of faces a person")
    folders = sorted(one for one in root.iterdir() if one.is_dir() and one.name[0] != ".")
    if len(folders) < 2:
        raise DataError(
            f"{root} holds {len(folders)} folder(s); faces of two people or more are needed, one"
            " folder a person"
        )
    people = []
    for folder in folders:
        people.append(pictures_in(folder))
        if not people[-1]:
            raise DataError(f"{folder} holds no picture (.jpg, .png, .bmp or .webp)")
    return tuple(people)


def faces_of(root: Path, *, is_held_out: bool) -> tuple[Face, ...]:
    """Return the faces to train on, or those held out."""
    every = [
        (number % EVERY_HELD_OUT == EVERY_HELD_OUT - 1, Face(path=path, identity=identity))
        for identity, paths in enumerate(read_identities(root))
        for number, path in enumerate(paths)
    ]
    chosen = tuple(face for is_out, face in every if is_out == is_held_out)
    return chosen or tuple(face for _, face in every)


def faces_used(root: Path, *, is_held_out: bool) -> UsedData:
    """Return how many faces are used, and of how many people."""
    faces = faces_of(root, is_held_out=is_held_out)
    people = len({face.identity for face in faces})
    what = "held out" if is_held_out else "to train on"
    return UsedData(words=f"faces {what}, {len(faces)} of {people} people", num_samples=len(faces))


def check_folder(root: Path, *, identities: int, pixels: int) -> None:
    """Raise `DataError` for what training or inference could not use."""
    people = read_identities(root)
    if len(people) > identities:
        raise DataError(
            f"{root} holds faces of {len(people)} people, but the workload has"
            f" identities={identities}; add --set identities={len(people)}"
        )
    for path in (path for paths in people for path in paths):
        width, height = picture_size(path)
        if (width, height) != (pixels, pixels):
            hint = f"align and crop all faces, or add --set pixels={width}"
            hint = hint if width == height else "align and crop all faces to squares"
            raise DataError(f"{path} is {width} x {height} pixels, not {pixels} x {pixels}; {hint}")
    read_whole(path for paths in people for path in paths)
