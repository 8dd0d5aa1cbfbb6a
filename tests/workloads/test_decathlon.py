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

IMAGE, LABEL = "imagesTr/phantom_001.nii.gz", "labelsTr/phantom_001.nii.gz"
Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data", cases=3, seed=0, shape=(16, 14, 12))
    return tmp_path / "data"


def reason_of(folder: Path) -> str | None:
    """What is said of a folder; None where it passes."""
    try:
        check_folder(folder, classes=3, channels=1, cases=8)
    except DataError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


def rewrite(path: Path, change: Change, *, affine: Any = None) -> None:
    """Replace the voxels of a file (as float32) by what `change` makes of them."""
    old = nibabel.load(path)
    array = change(np.asarray(old.dataobj, dtype=np.float32))
    nibabel.save(nibabel.Nifti1Image(array, old.affine if affine is None else affine), path)


def same(array: np.ndarray) -> np.ndarray:
    return array


def with_voxel(value: float) -> Change:
    return lambda array: np.where(np.arange(array.size).reshape(array.shape) == 99, value, array)


def set_key(folder: Path, key: str, value: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


FOLDERS: dict[str, Callable[[Path], object]] = {
    "data is not a folder": shutil.rmtree,
    r"dataset\.json is missing.*bench data phantom": lambda at: (at / "dataset.json").unlink(),
    "names no class beside": lambda at: set_key(at, "labels", {"0": "background"}),
    "the classes a, b and the modalities CT, but .*add --set classes=2$":
        lambda at: set_key(at, "labels", {"0": "a", "1": "b"}),
    "add --set channels=2$": lambda at: set_key(at, "modality", {"0": "T1", "1": "T2"}),
    f"{IMAGE} is missing": lambda at: (at / IMAGE).unlink(),
    f"{LABEL} is missing": lambda at: (at / LABEL).unlink(),
    f"{IMAGE} cannot be read as NIfTI": lambda at: (at / IMAGE).write_text("not an image"),
    f"{LABEL} lies elsewhere.*affines differ":
        lambda at: rewrite(at / LABEL, same, affine=np.diag([2.0, 2.0, 2.0, 1.0])),
}  # fmt: skip
VOXELS: list[tuple[str, str, Change]] = [
    (IMAGE, "has shape 16 x 14: a 2-D image", lambda array: array[:, :, 0]),
    (IMAGE, "has shape 16 x 14 x 1: a 2-D image", lambda array: array[:, :, :1]),
    (IMAGE, "16 x 14 x 12 x 2, not a volume of 1 channel", lambda array: np.stack([array] * 2, -1)),
    (LABEL, "has shape 15 x 14 x 12 but its image 16 x 14 x 12", lambda array: array[:-1]),
    *[(LABEL, f"holds label {value}; .* 0 to 2", with_voxel(value)) for value in (3, 255, -1)],
    *[(LABEL, "not whole numbers", with_voxel(value)) for value in (0.5, np.nan, np.inf)],
    *[(IMAGE, "not finite", with_voxel(value)) for value in (np.nan, np.inf, -np.inf)],
    (IMAGE, "is empty: every voxel is 0", np.zeros_like),
]


def test_the_file_and_what_is_wrong_with_it_are_named(folder: Path, tmp_path: Path) -> None:
    damages = [*FOLDERS.items()]
    for name, words, change in VOXELS:
        damages.append((f"{name} .*{words}", lambda at, n=name, c=change: rewrite(at / n, c)))
    for number, (words, damage) in enumerate(damages):
        copy = shutil.copytree(folder, tmp_path / str(number) / "data")
        damage(copy)
        with pytest.raises(DataError, match=words):
            check_folder(copy, classes=3, channels=1, cases=8)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_named_or_is_harmless(folder: Path, data: st.DataObject) -> None:
    def reason_with(name: str, content: bytes) -> str | None:
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(content)
        reason = reason_of(folder)
        path.write_bytes(whole)
        return reason

    position = data.draw(st.floats(min_value=0, max_value=0.99))
    for name in (IMAGE, LABEL):
        whole = (folder / name).read_bytes()
        reason = reason_with(name, whole[: int(len(whole) * position)])
        assert reason is not None and f"{folder / name} cannot be read as NIfTI" in reason
    whole = (folder / IMAGE).read_bytes()
    flipped = bytearray(whole)
    flipped[int(position * len(whole))] ^= 1 << data.draw(st.integers(0, 7))
    reason = reason_with(IMAGE, bytes(flipped))
    # gzip's header holds a time and flags that change nothing.
    is_harmless = reason is None and gzip.decompress(bytes(flipped)) == gzip.decompress(whole)
    assert is_harmless or (reason is not None and str(folder / IMAGE) in reason)
    header = bytearray(gzip.decompress(whole))
    header[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    reason = reason_with(IMAGE, gzip.compress(bytes(header), compresslevel=1))
    assert reason is None or "phantom_001" in reason


def test_a_valid_folder_passes_in_every_form(folder: Path) -> None:
    rewrite(folder / LABEL, same)
    rewrite(folder / IMAGE, lambda array: array[..., None])
    nibabel.save(nibabel.load(folder / IMAGE), folder.parent / "elsewhere.nii")
    assert reason_of(folder) is None
    pairs = json.loads((folder / "dataset.json").read_text())["training"]
    set_key(folder, "training", [{**pairs[1], "image": "../elsewhere.nii"}])
    assert reason_of(folder) is None


def test_spacing_and_largest_volume_are_in_patient_order_and_read_from_headers(
    folder: Path,
) -> None:
    cases = read_folder(folder).training
    for case, across in zip(cases, (1.0, 2.0, 9.0), strict=True):
        # Array axes are superior, right, anterior.
        affine = np.array([[0, 3.0, 0, 0], [0, 0, 4.0, 0], [across, 0, 0, 0], [0, 0, 0, 1]])
        rewrite(case.images[0], same, affine=affine)
    assert median_spacing_mm(cases) == (3.0, 4.0, 2.0)
    # The held-out one: 20 x 10 x 12 voxels of 2 x 1 x 4 mm, stored as anterior, right, superior.
    affine = np.eye(4)[[1, 0, 2, 3]] @ np.diag([1.0, 2.0, 4.0, 1.0])
    rewrite(cases[0].images[0], lambda _: np.ones((10, 20, 12)), affine=affine)
    assert largest_volume(folder, cases=8, spacing_mm=(1.0, 1.0, 2.0)) == ((40, 10, 24), 1)
    # Of 11 cases three are held out. Two of half the largest's size are as much as one more of it.
    write(folder.parent / "more", cases=11, seed=0, shape=(8, 8, 8))
    held_out = read_folder(folder.parent / "more").training[::5]
    for lengths, number in (((8, 8, 8), 3), ((8, 16, 8), 2)):
        for case, length in zip(held_out, lengths, strict=True):
            voxels = np.ones((8, 8, length))
            rewrite(case.images[0], lambda _, to=voxels: to, affine=np.eye(4))
        found = largest_volume(folder.parent / "more", cases=8, spacing_mm=(1.0, 1.0, 1.0))
        assert found == ((8, 8, max(lengths)), number)


def test_split_trains_on_held_out_cases_only_where_there_is_one(tmp_path: Path) -> None:
    for name, cases, tests, most, expected in [
        # Of eleven the 1st, 6th and 11th are held out, all of them inferred where it is allowed.
        ("many", 11, 0, 8, (8, 3, 0)),
        ("few", 11, 0, 2, (2, 2, 0)),
        ("one", 1, 0, 8, (1, 1, 1)),
        ("tested", 11, 2, None, (8, 3 + 2, 0)),
        ("one and a test", 1, 1, 8, (1, 1, 0)),
    ]:
        write(tmp_path / name, cases=cases, seed=0, shape=(8, 8, 8))
        for number in range(tests):
            (tmp_path / name / "imagesTs" / f"t{number}.nii.gz").touch()
        training, held_out = read_folder(tmp_path / name).split(most)
        shared = set(training) & set(held_out)
        assert (len(training), len(held_out), len(shared)) == expected
