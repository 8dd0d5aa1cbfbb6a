"""A damaged Decathlon folder: the file and what is wrong with it are named, before any timing."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.core.errors import DataError, UsageError
from workloads._decathlon import check_folder, median_spacing_mm, read_folder
from workloads._phantom_folder import write

SHAPE = (16, 14, 12)


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


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], *, affine: Any = None) -> None:
    """Replace the voxels of a file (as float32) by what `change` makes of them."""
    old = nibabel.load(path)
    array = change(np.asarray(old.dataobj, dtype=np.float32))
    nibabel.save(nibabel.Nifti1Image(array, old.affine if affine is None else affine), path)


def edit_json(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content))


def with_voxel(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[3, 4, 5] = value
        return array

    return change


def test_valid_folder_passes(folder: Path) -> None:
    check(folder)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        check(tmp_path / "nowhere")


def test_missing_dataset_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.json is missing.*bench data phantom"):
        check(tmp_path)


@pytest.mark.parametrize("text", ["{", "", "[]", "3", '"a"', "\x00", "{'a': 1}"])
def test_bad_json_is_named(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_text(text)
    with pytest.raises(
        DataError, match=r"dataset\.json (is not readable JSON|must hold an object)"
    ):
        check(folder)


def test_dataset_json_of_other_bytes_is_named(folder: Path) -> None:
    (folder / "dataset.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match=r"dataset\.json is not readable JSON"):
        check(folder)


@pytest.mark.parametrize("key", ["labels", "modality", "training"])
@pytest.mark.parametrize("value", [None, {}, [], 7, "text"])
def test_missing_or_odd_key_is_named(folder: Path, key: str, value: object) -> None:
    edit_json(folder, lambda content: content.update({key: value}))
    with pytest.raises(DataError, match=f'dataset.json lacks "{key}"'):
        check(folder)


def test_labels_with_a_gap_are_refused(folder: Path) -> None:
    edit_json(folder, lambda content: content.update(labels={"0": "a", "1": "b", "3": "c"}))
    with pytest.raises(DataError, match='"labels" must be numbered 0 to 2'):
        check(folder)


@pytest.mark.parametrize("entry", [{}, 1, "x", {"image": "a"}, {"label": "a", "image": 3}])
def test_odd_training_entry_is_named(folder: Path, entry: object) -> None:
    edit_json(folder, lambda content: content["training"].insert(1, entry))
    with pytest.raises(DataError, match="training case 1 lacks"):
        check(folder)


def test_other_number_of_classes_says_what_to_set(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"the classes background, organ 1, lesion .*--set classes=3$"
    ):
        check(folder, classes=5)


def test_other_number_of_modalities_says_what_to_set(folder: Path) -> None:
    with pytest.raises(DataError, match="--set channels=1$"):
        check(folder, channels=4)


@pytest.mark.parametrize("find", [image_file, label_file])
def test_missing_file_is_named(folder: Path, find: Callable[[Path], Path]) -> None:
    find(folder).unlink()
    with pytest.raises(DataError, match=f"{find(folder)} is missing"):
        check(folder)


@pytest.mark.parametrize("find", [image_file, label_file])
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kept=st.floats(min_value=0, max_value=0.99))
def test_truncated_file_is_named(folder: Path, find: Callable[[Path], Path], kept: float) -> None:
    path = find(folder)
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: int(len(whole) * kept)])
        with pytest.raises(DataError, match=f"{path} cannot be read as NIfTI"):
            check(folder)
    finally:
        path.write_bytes(whole)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.floats(min_value=0, max_value=0.999), bit=st.integers(0, 7))
def test_flipped_bit_in_a_gzip_is_found_or_harmless(
    folder: Path, position: float, bit: int
) -> None:
    path = image_file(folder)
    whole = path.read_bytes()
    content = gzip.decompress(whole)
    damaged = bytearray(whole)
    damaged[int(position * len(whole))] ^= 1 << bit
    try:
        path.write_bytes(damaged)
        try:
            check(folder)
        except DataError as error:
            assert str(path) in str(error)
        else:
            # gzip's header holds a time and flags that change nothing.
            assert gzip.decompress(bytes(damaged)) == content
    finally:
        path.write_bytes(whole)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 351), value=st.integers(0, 255))
def test_odd_byte_in_the_nifti_header_never_escapes_as_another_error(
    folder: Path, position: int, value: int
) -> None:
    path = image_file(folder)
    whole = path.read_bytes()
    content = bytearray(gzip.decompress(whole))
    content[position] = value
    try:
        path.write_bytes(gzip.compress(bytes(content), compresslevel=1))
        try:
            check(folder)
        except DataError as error:
            assert "phantom_001" in str(error)
    finally:
        path.write_bytes(whole)


def test_text_in_place_of_a_gzip_is_named(folder: Path) -> None:
    image_file(folder).write_text("not an image")
    with pytest.raises(DataError, match="phantom_001.nii.gz cannot be read as NIfTI"):
        check(folder)


def test_flat_image_is_named(folder: Path) -> None:
    rewrite(image_file(folder), lambda array: array[:, :, 0])
    with pytest.raises(DataError, match="imagesTr.*phantom_001.*16 x 14: a 2-D image"):
        check(folder)


def test_single_slice_is_named(folder: Path) -> None:
    rewrite(image_file(folder), lambda array: array[:, :, :1])
    with pytest.raises(DataError, match="phantom_001.*16 x 14 x 1: a 2-D image"):
        check(folder)


def test_image_with_too_many_channels_is_named(folder: Path) -> None:
    rewrite(image_file(folder), lambda array: np.stack([array, array], axis=-1))
    with pytest.raises(DataError, match="phantom_001.*16 x 14 x 12 x 2, not a volume of 1 channel"):
        check(folder)


def test_shapes_that_differ_are_named(folder: Path) -> None:
    rewrite(label_file(folder), lambda array: array[:-1])
    with pytest.raises(DataError, match="labelsTr.*shape 15 x 14 x 12 but its image 16 x 14 x 12"):
        check(folder)


@pytest.mark.parametrize("value", [3, 255, -1])
def test_label_outside_the_classes_is_named(folder: Path, value: int) -> None:
    rewrite(label_file(folder), with_voxel(value))
    with pytest.raises(DataError, match=f"labelsTr.*phantom_001.*holds label {value}; .* 0 to 2"):
        check(folder)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_label_that_is_not_whole_is_named(folder: Path, value: float) -> None:
    rewrite(label_file(folder), with_voxel(value))
    with pytest.raises(DataError, match="labelsTr.*phantom_001.*not whole numbers"):
        check(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_image_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    rewrite(image_file(folder), with_voxel(value))
    with pytest.raises(DataError, match="imagesTr.*phantom_001.*not finite"):
        check(folder)


def test_empty_image_is_named(folder: Path) -> None:
    rewrite(image_file(folder), np.zeros_like)
    with pytest.raises(DataError, match="phantom_001.*is empty: every voxel is 0"):
        check(folder)


def test_label_in_another_place_is_named(folder: Path) -> None:
    rewrite(label_file(folder), lambda array: array, affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(DataError, match="labelsTr.*phantom_001.*affines differ"):
        check(folder)


def test_label_stored_as_whole_floats_passes(folder: Path) -> None:
    rewrite(label_file(folder), lambda array: array)
    check(folder)


def test_uncompressed_nifti_outside_the_folder_passes(folder: Path, tmp_path: Path) -> None:
    nibabel.save(nibabel.load(image_file(folder)), tmp_path / "elsewhere.nii")
    edit_json(folder, lambda content: content["training"][1].update(image="../elsewhere.nii"))
    check(folder)


def test_nifti2_passes(folder: Path) -> None:
    old = nibabel.load(image_file(folder))
    array, affine = np.asarray(old.dataobj), old.affine
    nibabel.save(nibabel.Nifti2Image(array, affine), image_file(folder))
    check(folder)


def test_median_spacing_is_in_patient_order(tmp_path: Path) -> None:
    write(tmp_path / "data", cases=3, seed=0, shape=SHAPE)
    cases = read_folder(tmp_path / "data").cases
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


def test_checking_a_folder_does_not_import_torch(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from workloads.imaging import Workload;"
        f"Workload(**Workload.sizes['tiny']).check_data(Path({str(folder)!r}));"
        "print('torch' in sys.modules, 'monai' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.split() == ["False", "False"]
