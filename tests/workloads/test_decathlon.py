"""A damaged Decathlon folder: the file and what is wrong with it are named, before any timing."""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.core.errors import DataError, UsageError
from workloads._imaging.decathlon import check_folder, median_spacing_mm, read_folder
from workloads._imaging.phantom import write

SHAPE = (16, 14, 12)
Damage = Callable[[Path], object]
Find = Callable[[Path], Path]
Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data", cases=3, seed=0, shape=SHAPE)
    return tmp_path / "data"


def check(folder: Path, **changed: int) -> None:
    check_folder(folder, **{"classes": 3, "channels": 1, "cases": 8, **changed})


def image_file(folder: Path) -> Path:
    return folder / "imagesTr" / "phantom_001.nii.gz"


def label_file(folder: Path) -> Path:
    return folder / "labelsTr" / "phantom_001.nii.gz"


def rewrite(path: Path, change: Change, *, affine: Any = None) -> None:
    """Replace the voxels of a file (as float32) by what `change` makes of them."""
    old = nibabel.load(path)
    array = change(np.asarray(old.dataobj, dtype=np.float32))
    nibabel.save(nibabel.Nifti1Image(array, old.affine if affine is None else affine), path)


def edit_json(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content))


def with_voxel(value: float) -> Change:
    def change(array: np.ndarray) -> np.ndarray:
        array[3, 4, 5] = value
        return array

    return change


def set_key(key: str, value: object) -> Damage:
    return lambda folder: edit_json(folder, lambda content: content.update({key: value}))


def add_case(entry: object) -> Damage:
    return lambda folder: edit_json(folder, lambda content: content["training"].insert(1, entry))


def voxels(find: Find, change: Change, **more: Any) -> Damage:
    return lambda folder: rewrite(find(folder), change, **more)


def same(array: np.ndarray) -> np.ndarray:
    return array


DAMAGES: list[tuple[str, Damage]] = [
    ("data is not a folder", lambda folder: folder.rename(folder.parent / "elsewhere")),
    (r"dataset\.json is missing.*bench data phantom",
     lambda folder: (folder / "dataset.json").unlink()),
    (r"dataset\.json is not readable JSON",
     lambda folder: (folder / "dataset.json").write_bytes(b"\xff\xfe\x00\x80")),
    *[(r"dataset\.json(: Expected| is not readable JSON)",
       lambda folder, text=text: (folder / "dataset.json").write_text(text))
      for text in ("{", "", "[]", "3", '"a"', "\x00", "{'a': 1}")],
    *[(rf"dataset\.json: Expected .*`\$\.{key}`", set_key(key, value))
      for key in ("labels", "modality", "training") for value in (None, {}, [], 7, "text")],
    ('"labels" must be numbered 0 to 2', set_key("labels", {"0": "a", "1": "b", "3": "c"})),
    *[(r"dataset\.json: .*`\$\.training\[1\]", add_case(entry))
      for entry in ({}, 1, "x", {"image": "a"}, {"label": "a", "image": 3})],
    ("the classes a, b .*--set classes=2$", set_key("labels", {"0": "a", "1": "b"})),
    ("--set channels=2$", set_key("modality", {"0": "T1", "1": "T2"})),
    ("imagesTr/phantom_001.nii.gz is missing", lambda folder: image_file(folder).unlink()),
    ("labelsTr/phantom_001.nii.gz is missing", lambda folder: label_file(folder).unlink()),
    ("phantom_001.nii.gz cannot be read as NIfTI",
     lambda folder: image_file(folder).write_text("not an image")),
    ("imagesTr.*phantom_001.*16 x 14: a 2-D image", voxels(image_file, lambda a: a[:, :, 0])),
    ("phantom_001.*16 x 14 x 1: a 2-D image", voxels(image_file, lambda a: a[:, :, :1])),
    ("phantom_001.*16 x 14 x 12 x 2, not a volume of 1 channel",
     voxels(image_file, lambda a: np.stack([a, a], axis=-1))),
    ("labelsTr.*shape 15 x 14 x 12 but its image 16 x 14 x 12",
     voxels(label_file, lambda a: a[:-1])),
    *[(f"labelsTr.*phantom_001.*holds label {value}; .* 0 to 2",
       voxels(label_file, with_voxel(value))) for value in (3, 255, -1)],
    *[("labelsTr.*phantom_001.*not whole numbers", voxels(label_file, with_voxel(value)))
      for value in (0.5, np.nan, np.inf)],
    *[("imagesTr.*phantom_001.*not finite", voxels(image_file, with_voxel(value)))
      for value in (np.nan, np.inf, -np.inf)],
    ("phantom_001.*is empty: every voxel is 0", voxels(image_file, np.zeros_like)),
    ("labelsTr.*phantom_001.*affines differ",
     voxels(label_file, same, affine=np.diag([2.0, 2.0, 2.0, 1.0]))),
]  # fmt: skip


@pytest.mark.parametrize(("said", "damage"), DAMAGES)
def test_the_file_and_what_is_wrong_with_it_are_named(
    folder: Path, said: str, damage: Damage
) -> None:
    damage(folder)
    with pytest.raises(DataError, match=said):
        check(folder)


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


def many(count: int) -> Any:
    """Hypothesis's settings for examples that share a folder and leave it as it was."""
    shared = [HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, deadline=None, suppress_health_check=shared)


@pytest.mark.parametrize("find", [image_file, label_file])
@many(12)
@given(kept=st.floats(min_value=0, max_value=0.99))
def test_truncated_file_is_named(folder: Path, find: Find, kept: float) -> None:
    path = find(folder)
    whole = path.read_bytes()
    with (
        replaced(path, whole[: int(len(whole) * kept)]),
        pytest.raises(DataError, match=f"{path} cannot be read as NIfTI"),
    ):
        check(folder)


@many(40)
@given(position=st.floats(min_value=0, max_value=0.999), bit=st.integers(0, 7))
def test_flipped_bit_in_a_gzip_is_found_or_harmless(
    folder: Path, position: float, bit: int
) -> None:
    path = image_file(folder)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(position * len(whole))] ^= 1 << bit
    with replaced(path, bytes(damaged)):
        try:
            check(folder)
        except DataError as error:
            assert str(path) in str(error)
        else:
            # gzip's header holds a time and flags that change nothing.
            assert gzip.decompress(bytes(damaged)) == gzip.decompress(whole)


@many(60)
@given(position=st.integers(0, 351), value=st.integers(0, 255))
def test_odd_byte_in_the_nifti_header_never_escapes_as_another_error(
    folder: Path, position: int, value: int
) -> None:
    content = bytearray(gzip.decompress(image_file(folder).read_bytes()))
    content[position] = value
    with replaced(image_file(folder), gzip.compress(bytes(content), compresslevel=1)):
        try:
            check(folder)
        except DataError as error:
            assert "phantom_001" in str(error)


def move_out(folder: Path) -> None:
    nibabel.save(nibabel.load(image_file(folder)), folder.parent / "elsewhere.nii")
    edit_json(folder, lambda content: content["training"][1].update(image="../elsewhere.nii"))


def as_nifti2(folder: Path) -> None:
    old = nibabel.load(image_file(folder))
    new = nibabel.Nifti2Image(np.asarray(old.dataobj), old.affine)
    nibabel.save(new, image_file(folder))


@pytest.mark.parametrize(
    "change", [lambda folder: None, move_out, as_nifti2, voxels(label_file, same)]
)
def test_a_valid_folder_passes_in_every_form(folder: Path, change: Damage) -> None:
    change(folder)
    check(folder)


def test_median_spacing_is_in_patient_order(tmp_path: Path) -> None:
    write(tmp_path / "data", cases=3, seed=0, shape=SHAPE)
    cases = read_folder(tmp_path / "data").training
    for case, across in zip(cases, (1.0, 2.0, 9.0), strict=True):
        # Array axes are superior, right, anterior.
        affine = np.array([[0, 3.0, 0, 0], [0, 0, 4.0, 0], [across, 0, 0, 0], [0, 0, 0, 1]])
        rewrite(case.image, lambda array: array, affine=affine)
    assert median_spacing_mm(cases) == (3.0, 4.0, 2.0)


def test_split_never_trains_on_held_out_cases(tmp_path: Path) -> None:
    write(tmp_path / "data", cases=11, seed=0, shape=(8, 8, 8))
    training, validation = read_folder(tmp_path / "data").split(8)
    assert len(training) == 8 and len(validation) == 2
    assert not set(training) & set(validation)


def test_a_folder_that_is_not_empty_is_not_overwritten(folder: Path) -> None:
    before = image_file(folder).read_bytes()
    with pytest.raises(UsageError, match="not an empty folder"):
        write(folder, cases=2, seed=1, shape=SHAPE)
    assert image_file(folder).read_bytes() == before


@pytest.mark.parametrize(
    ("cases", "shape", "what"),
    [(0, SHAPE, "--cases"), (1, (16, 16), "--shape"), (1, (4, 16, 16), "--shape")],
)
def test_odd_sizes_of_a_phantom_folder_are_refused(
    tmp_path: Path, cases: int, shape: tuple[int, ...], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        write(tmp_path / "data", cases=cases, seed=0, shape=shape)
