"""A damaged Decathlon folder: the file and what is wrong with it are named, before any timing."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.core.errors import DataError
from workloads._imaging.dataset_json import read_folder
from workloads._imaging.decathlon import check_folder, largest_volume, median_spacing_mm
from workloads._imaging.phantom import write

SHAPE = (16, 14, 12)
IMAGE, LABEL = "imagesTr/phantom_001.nii.gz", "labelsTr/phantom_001.nii.gz"
Damage = Callable[[Path], object]
Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data", cases=3, seed=0, shape=SHAPE)
    return tmp_path / "data"


def check(folder: Path, **changed: int) -> None:
    check_folder(folder, **{"classes": 3, "channels": 1, "cases": 8, **changed})


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


def voxels(name: str, change: Change, **more: Any) -> Damage:
    return lambda folder: rewrite(folder / name, change, **more)


def same(array: np.ndarray) -> np.ndarray:
    return array


def text(content: str) -> Damage:
    return lambda folder: (folder / "dataset.json").write_text(content)


DAMAGES: dict[str, list[Damage]] = {
    "data is not a folder": [lambda folder: folder.rename(folder.parent / "elsewhere")],
    r"dataset\.json is missing.*bench data phantom":
        [lambda folder: (folder / "dataset.json").unlink()],
    r"dataset\.json is not readable JSON":
        [lambda folder: (folder / "dataset.json").write_bytes(b"\xff\xfe\x00\x80"),
         *map(text, ("{", "", "\x00", "{'a': 1}"))],
    r"dataset\.json: Expected `object`.*needs": [text("[]"), text("3"), text('"a"')],
    **{rf"dataset\.json: Expected .*`\$\.{key}`":
        [set_key(key, value) for value in (None, {}, [], 7, "text")]
       for key in ("labels", "modality", "training")},
    '"labels" must be numbered': [set_key("labels", {"0": "a", "1": "b", "3": "c"})],
    r"dataset\.json: (Expected|Object missing) .*`\$\.training\[1\]":
        [add_case(entry) for entry in ({}, 1, "x", {"image": "a"}, {"label": "a", "image": 3})],
    "names no class beside": [set_key("labels", {"0": "background"})],
    "the classes a, b and the modalities CT, but .*--set classes=2$":
        [set_key("labels", {"0": "a", "1": "b"})],
    "--set channels=2$": [set_key("modality", {"0": "T1", "1": "T2"})],
    "imagesTr/phantom_001.nii.gz is missing": [lambda folder: (folder / IMAGE).unlink()],
    "labelsTr/phantom_001.nii.gz is missing": [lambda folder: (folder / LABEL).unlink()],
    "phantom_001.nii.gz cannot be read as NIfTI":
        [lambda folder: (folder / IMAGE).write_text("not an image")],
    "imagesTr.*phantom_001.*16 x 14( x 1)?: a 2-D image":
        [voxels(IMAGE, lambda a: a[:, :, 0]), voxels(IMAGE, lambda a: a[:, :, :1])],
    "phantom_001.*16 x 14 x 12 x 2, not a volume of 1 channel":
        [voxels(IMAGE, lambda a: np.stack([a, a], axis=-1))],
    "labelsTr.*shape 15 x 14 x 12 but its image 16 x 14 x 12":
        [voxels(LABEL, lambda a: a[:-1])],
    **{f"labelsTr.*phantom_001.*holds label {value}; .* 0 to 2":
        [voxels(LABEL, with_voxel(value))] for value in (3, 255, -1)},
    "labelsTr.*phantom_001.*not whole numbers":
        [voxels(LABEL, with_voxel(value)) for value in (0.5, np.nan, np.inf)],
    "imagesTr.*phantom_001.*not finite":
        [voxels(IMAGE, with_voxel(value)) for value in (np.nan, np.inf, -np.inf)],
    "phantom_001.*is empty: every voxel is 0": [voxels(IMAGE, np.zeros_like)],
    "labelsTr.*phantom_001.*affines differ":
        [voxels(LABEL, same, affine=np.diag([2.0, 2.0, 2.0, 1.0]))],
}  # fmt: skip


def test_the_file_and_what_is_wrong_with_it_are_named(folder: Path, tmp_path: Path) -> None:
    pairs = [(words, damage) for words, several in DAMAGES.items() for damage in several]
    for number, (words, damage) in enumerate(pairs):
        copy = shutil.copytree(folder, tmp_path / str(number) / "data")
        damage(copy)
        with pytest.raises(DataError, match=words):
            check(copy)


def reason_of(folder: Path, name: str, content: bytes) -> str | None:
    """What is said of a folder whose file `name` has this content; None where it passes."""
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        check(folder)
    except DataError as error:
        assert "\n" not in str(error)
        return str(error)
    finally:
        path.write_bytes(whole)
    return None


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_is_named_or_is_harmless(folder: Path, data: st.DataObject) -> None:
    position = data.draw(st.floats(min_value=0, max_value=0.99))
    for name in (IMAGE, LABEL):
        whole = (folder / name).read_bytes()
        reason = reason_of(folder, name, whole[: int(len(whole) * position)])
        assert reason is not None and f"{folder / name} cannot be read as NIfTI" in reason
    whole = (folder / IMAGE).read_bytes()
    flipped = bytearray(whole)
    flipped[int(position * len(whole))] ^= 1 << data.draw(st.integers(0, 7))
    reason = reason_of(folder, IMAGE, bytes(flipped))
    # gzip's header holds a time and flags that change nothing.
    is_harmless = reason is None and gzip.decompress(bytes(flipped)) == gzip.decompress(whole)
    assert is_harmless or (reason is not None and str(folder / IMAGE) in reason)
    header = bytearray(gzip.decompress(whole))
    header[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    reason = reason_of(folder, IMAGE, gzip.compress(bytes(header), compresslevel=1))
    assert reason is None or "phantom_001" in reason


def test_a_valid_folder_passes_in_every_form(folder: Path) -> None:
    check(folder)
    rewrite(folder / LABEL, same)
    rewrite(folder / IMAGE, lambda array: array[..., None])
    check(folder)
    old = nibabel.load(folder / IMAGE)
    nibabel.save(nibabel.Nifti2Image(np.asarray(old.dataobj), old.affine), folder / IMAGE)
    check(folder)
    nibabel.save(nibabel.load(folder / IMAGE), folder.parent / "elsewhere.nii")
    edit_json(folder, lambda content: content["training"][1].update(image="../elsewhere.nii"))
    check(folder)


def test_median_spacing_is_in_patient_order(folder: Path) -> None:
    cases = read_folder(folder).training
    for case, across in zip(cases, (1.0, 2.0, 9.0), strict=True):
        # Array axes are superior, right, anterior.
        affine = np.array([[0, 3.0, 0, 0], [0, 0, 4.0, 0], [across, 0, 0, 0], [0, 0, 0, 1]])
        rewrite(case.images[0], same, affine=affine)
    assert median_spacing_mm(cases) == (3.0, 4.0, 2.0)


def test_the_largest_held_out_volume_is_known_by_headers(folder: Path) -> None:
    case = read_folder(folder).training[0]
    # 20 x 10 x 12 voxels of 2 x 1 x 4 mm, stored as anterior, right, superior.
    image = nibabel.Nifti1Image(np.ones((10, 20, 12), "int16"), np.eye(4)[[1, 0, 2, 3]])
    affine = image.affine @ np.diag([1.0, 2.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), case.images[0])
    found = largest_volume(folder, cases=8, spacing_mm=(1.0, 1.0, 2.0))
    assert found == (40, 10, 24)


def test_split_trains_on_held_out_cases_only_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path / "many", cases=11, seed=0, shape=(8, 8, 8))
    training, validation = read_folder(tmp_path / "many").split(8)
    # Of eleven the 1st, 6th and 11th are held out, all of them inferred where `cases` allows it.
    assert (len(training), len(validation)) == (8, 3)
    assert not set(training) & set(validation)
    training, validation = read_folder(tmp_path / "many").split(2)
    assert (len(training), len(validation)) == (2, 2)
    write(tmp_path / "one", cases=1, seed=0, shape=(8, 8, 8))
    training, validation = read_folder(tmp_path / "one").split(8)
    assert len(training) == 1 and training == validation
