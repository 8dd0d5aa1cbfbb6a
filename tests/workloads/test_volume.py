"""One reader of a volume: geometry that agrees, plain numbers, zipped or not, a file a channel."""

import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.affines import voxel_sizes

from bench.core.errors import DataError
from workloads._imaging.volume import read_channels, read_grid

SHAPE = (5, 4, 3)
VOXELS = np.arange(60).reshape(SHAPE)


def save(path: Path, voxels: Any, *, affine: Any = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_channels((path,))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_header_and_whole_file_agree_in_every_form(kind: Any, order: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dtypes, names = ("u1", "i2", "i4", "u8", "f4", "f8"), ("a.nii", "a.nii.gz")
    for dtype, name, is_zipped in itertools.product(dtypes, names, (False, True)):
        sizes_mm, axes = rng.uniform(0.05, 20, 3), rng.permutation(3)
        affine = np.eye(4)
        affine[:3, :3] = np.diag(sizes_mm * rng.choice([-1, 1], 3))[:, axes]
        header = kind.header_class(endianness=order)
        header.set_data_dtype(dtype)
        raw = kind(VOXELS.astype(dtype), affine, header).to_bytes()
        assert int.from_bytes(raw[:4], "little" if order == "<" else "big") in (348, 540)
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw) if is_zipped else raw)
        found, place = read_channels((path,))
        shape, by_header = read_grid(path)
        assert shape == SHAPE and np.array_equal(by_header, place)
        assert found.dtype == np.float32 and np.array_equal(found[0], VOXELS)
        assert np.allclose(place, affine, rtol=1e-6)
        assert np.allclose(voxel_sizes(place), sizes_mm[axes], rtol=1e-6)


@pytest.mark.parametrize("axis", range(3))
def test_two_sizes_of_one_voxel_are_refused_beyond_a_hundredth(axis: int, tmp_path: Path) -> None:
    path, sizes_mm = tmp_path / "a.nii", (0.5, 1.0, 4.0)
    for factor in (0.1, 0.985, 0.992, 1.008, 1.015, 10.0):
        image = nibabel.Nifti1Image(VOXELS.astype("i2"), np.diag([*sizes_mm, 1]))
        image.header["pixdim"][axis + 1] *= factor
        path.write_bytes(image.to_bytes())
        if abs(factor - 1) < 0.01:
            assert np.array_equal(read_grid(path)[1], read_channels((path,))[1])
            continue
        said = refusal(path)
        assert "a.nii contradicts itself: a voxel is" in said
        both = (sizes_mm[axis], sizes_mm[axis] * factor)
        assert all(f"{np.float32(size):.4g}" in said for size in both)
        with pytest.raises(DataError, match="contradicts itself"):
            read_grid(path)


def test_a_qform_or_pixdim_alone_is_no_contradiction_and_a_size_that_is_not_set_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.nii"
    for code in (0, 1):
        image = nibabel.Nifti1Image(VOXELS.astype("i2"), np.diag([-2, 3, 4, 1]))
        image.set_qform(image.affine, code=code)
        image.set_sform(None, code=0)
        path.write_bytes(image.to_bytes())
        assert voxel_sizes(read_grid(path)[1]) == pytest.approx([2, 3, 4])
    raw = nibabel.Nifti1Image(VOXELS.astype("i2"), np.diag([1, 2, 3, 1])).to_bytes()
    for pixdim, sform_code, words in [
        (0, 1, "a voxel is 1 x 2 x 0 mm by its pixdim and 1 x 2 x 3 mm"),
        (np.nan, 1, "a voxel is 1 x 2 x nan mm by its pixdim"),
        (0, 0, "has no valid affine"),
        (np.inf, 0, "has no valid affine"),
    ]:
        header = nibabel.Nifti1Header(raw[:348])
        header["pixdim"][3], header["sform_code"] = pixdim, sform_code
        path.write_bytes(header.binaryblock + raw[348:])
        assert words in refusal(path)
    assert not caplog.records, "nibabel prints nothing of its own"


def test_only_plain_numbers_are_voxels(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    colours = [("R", "u1"), ("G", "u1"), ("B", "u1")]
    for shape, dtype, words in [
        (SHAPE, "complex64", "of type complex64, not one plain number"),
        (SHAPE, "complex128", "of type complex128"),
        (SHAPE, colours, "colours (R, G, B), not one plain number"),
        (SHAPE, [*colours, ("A", "u1")], "colours (R, G, B, A)"),
        ((*SHAPE, 1, 1), "i2", "5 x 4 x 3 x 1 x 1, not a volume: channels are the fourth"),
        ((*SHAPE, 1, 2), "i2", "5 x 4 x 3 x 1 x 2, not a volume"),
    ]:
        assert words in refusal(save(path, np.zeros(shape, dtype=np.dtype(dtype))))
    # More than fp32 holds, which `check_folder` refuses.
    found, _ = read_channels((save(path, np.full(SHAPE, 1e39)),))
    assert np.isinf(found).all()


def test_a_file_a_channel_becomes_one_volume_where_all_lie_at_one_place(tmp_path: Path) -> None:
    first = save(tmp_path / "a_0000.nii", VOXELS.astype("i2"))
    second = save(tmp_path / "a_0001.nii", (VOXELS * 2).astype("f4"))
    both, _ = read_channels((first, second))
    assert np.array_equal(both, [VOXELS, VOXELS * 2])
    for voxels, affine in ((VOXELS[:-1], None), (VOXELS, np.diag([1, 1, 1.2, 1]))):
        save(second, voxels.astype("i2"), affine=affine)
        with pytest.raises(DataError, match=r"a_0001.nii is not the same volume as .*a_0000.nii"):
            read_channels((first, second))
