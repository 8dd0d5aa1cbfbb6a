"""One reader of a volume: geometry that agrees, plain numbers, zipped or not, a file a channel."""

import gzip
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.affines import voxel_sizes

from bench.core.errors import DataError
from workloads._imaging.volume import read_channels, read_grid

SHAPE = (5, 4, 3)
VOXELS = np.arange(60).reshape(SHAPE)
SIZES_MM = st.tuples(*[st.floats(0.05, 20)] * 3)
COLOURS = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def save(path: Path, voxels: Any, *, affine: Any = None, kind: Any = nibabel.Nifti1Image) -> Path:
    nibabel.save(kind(voxels, np.eye(4) if affine is None else affine), path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_channels((path,))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@given(
    sizes_mm=SIZES_MM,
    axes=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    dtype=st.sampled_from(["u1", "i2", "i4", "u8", "f4", "f8"]),
    order=st.sampled_from("<>"),
    kind=st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    name=st.sampled_from(["a.nii", "a.nii.gz"]),
    is_zipped=st.booleans(),
)
def test_header_and_whole_file_agree_in_every_form(
    sizes_mm: tuple[float, ...],
    axes: list[int],
    signs: tuple[int, ...],
    dtype: str,
    order: str,
    kind: Any,
    name: str,
    is_zipped: bool,
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.multiply(sizes_mm, signs))[:, axes]
    header = kind.header_class(endianness=order)
    header.set_data_dtype(dtype)
    raw = kind(VOXELS.astype(dtype), affine, header).to_bytes()
    assert int.from_bytes(raw[:4], "little" if order == "<" else "big") in (348, 540)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(gzip.compress(raw) if is_zipped else raw)
        found, place = read_channels((path,))
        assert np.array_equal(read_grid(path)[1], place)
    assert found.dtype == np.float32 and np.array_equal(found[0], VOXELS)
    assert np.allclose(place, affine, rtol=1e-6)
    assert np.allclose(voxel_sizes(place), np.array(sizes_mm)[axes], rtol=1e-6)


@given(
    sizes_mm=SIZES_MM,
    axis=st.integers(0, 2),
    factor=st.floats(0.1, 10).filter(lambda factor: abs(abs(factor - 1) - 0.01) > 1e-3),
)
def test_two_sizes_of_one_voxel_are_refused_beyond_a_hundredth(
    sizes_mm: tuple[float, ...], axis: int, factor: float
) -> None:
    image = nibabel.Nifti1Image(VOXELS.astype("i2"), np.diag([*sizes_mm, 1]))
    image.header["pixdim"][axis + 1] *= factor
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        path.write_bytes(image.to_bytes())
        if abs(factor - 1) < 0.01:
            assert np.array_equal(read_grid(path)[1], read_channels((path,))[1])
            return
        for read in (lambda: read_grid(path)[1], lambda: read_channels((path,))):
            with pytest.raises(DataError, match="a.nii contradicts itself: a voxel is") as caught:
                read()
            both = (sizes_mm[axis], sizes_mm[axis] * factor)
            assert all(f"{np.float32(size):.4g}" in str(caught.value) for size in both)


def test_geometry_of_a_qform_or_of_pixdim_alone_is_no_contradiction(tmp_path: Path) -> None:
    for forms in ({"qform": 1, "sform": 0}, {"qform": 0, "sform": 0}):
        image = nibabel.Nifti1Image(VOXELS.astype("i2"), np.diag([-2, 3, 4, 1]))
        image.set_qform(image.affine, code=forms["qform"])
        image.set_sform(image.affine if forms["sform"] else None, code=forms["sform"])
        path = tmp_path / "a.nii"
        path.write_bytes(image.to_bytes())
        assert voxel_sizes(read_grid(path)[1]) == pytest.approx([2, 3, 4])


def test_a_size_that_is_not_set_is_named_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(pixdim: float, *, code: int) -> str:
        raw = nibabel.Nifti1Image(VOXELS.astype("i2"), np.diag([1, 2, 3, 1])).to_bytes()
        header = nibabel.Nifti1Header(raw[:348])
        header["pixdim"][3] = pixdim
        header["sform_code"] = code
        path = tmp_path / "a.nii"
        path.write_bytes(header.binaryblock + raw[348:])
        return refusal(path)

    assert "a voxel is 1 x 2 x 0 mm by its pixdim and 1 x 2 x 3 mm" in refused(0, code=1)
    assert "a voxel is 1 x 2 x nan mm by its pixdim" in refused(np.nan, code=1)
    assert "has no valid affine" in refused(0, code=0)
    assert "has no valid affine" in refused(np.inf, code=0)
    assert capfd.readouterr().err == ""


def test_only_plain_numbers_are_voxels(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    assert "of type complex64, not one plain number" in refusal(
        save(path, VOXELS.astype("complex64"))
    )
    assert "of type complex128" in refusal(save(path, VOXELS.astype("complex128")))
    assert "colours (R, G, B), not one plain number" in refusal(
        save(path, np.zeros(SHAPE, dtype=COLOURS))
    )
    alpha = np.dtype([*COLOURS.descr, ("A", "u1")])
    assert "colours (R, G, B, A)" in refusal(save(path, np.zeros(SHAPE, dtype=alpha)))
    for shape in ((5, 4, 3, 1, 1), (5, 4, 3, 1, 2)):
        said = refusal(save(path, np.zeros(shape, dtype="i2")))
        assert " x ".join(map(str, shape)) in said and "no fifth" in said
    assert "a 2-D image" in refusal(save(path, np.zeros((5, 4), dtype="i2")))
    # More than fp32 holds, which `check_folder` refuses.
    found, _ = read_channels((save(path, np.full(SHAPE, 1e39)),))
    assert np.isinf(found).all()


def test_a_file_a_channel_becomes_one_volume_where_all_lie_at_one_place(tmp_path: Path) -> None:
    first = save(tmp_path / "a_0000.nii", VOXELS.astype("i2"))
    second = save(tmp_path / "a_0001.nii", (VOXELS * 2).astype("f4"))
    both, _ = read_channels((first, second))
    assert np.array_equal(both, [VOXELS, VOXELS * 2])
    apart = np.diag([1, 1, 1.2, 1])
    for voxels, affine in ((VOXELS[:-1], None), (VOXELS, apart)):
        save(second, voxels.astype("i2"), affine=affine)
        with pytest.raises(DataError, match=r"a_0001.nii is not the same volume as .*a_0000.nii"):
            read_channels((first, second))
