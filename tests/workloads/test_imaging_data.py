"""Patches and volumes: repeatable, balanced, from phantoms and from NIfTI files alike."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bench.core.errors import UsageError
from workloads._imaging.imaging_data import places
from workloads._imaging.phantom import write
from workloads.imaging import Workload

TINY = dict(Workload.sizes["tiny"])
TRAIN, INFER = Workload.phases


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gapbench" / "imaging"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data", cases=6, seed=0, shape=(36, 36, 24))
    return tmp_path / "data"


@pytest.fixture(params=["generated", "files"])
def data(request: pytest.FixtureRequest) -> Path | None:
    folder: Path = request.getfixturevalue("folder")
    return folder if request.param == "files" else None


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in ("image", "label"))


def test_patch_has_its_shape_range_and_types(data: Path | None) -> None:
    workload = Workload(**TINY)
    samples = workload.dataset(TRAIN, data=data, seed=0)
    assert len(samples) == 250 * workload.batch
    sample = samples[0]
    assert type(sample["image"]) is torch.Tensor and type(sample["label"]) is torch.Tensor
    assert sample["image"].shape == sample["label"].shape == (1, 24, 24, 16)
    assert sample["image"].dtype == torch.float32 and sample["label"].dtype == torch.uint8
    assert sample["image"].min() >= -1 and sample["image"].max() <= 1
    assert sample["label"].max() < workload.classes
    with pytest.raises(IndexError):
        samples[len(samples)]


def test_sample_depends_on_seed_and_index_alone(data: Path | None) -> None:
    workload = Workload(**TINY)
    first, again, other = (workload.dataset(TRAIN, data=data, seed=seed) for seed in (3, 3, 4))
    assert same(first[7], again[7])
    assert same(first[2], again[2])
    assert not same(first[7], first[8])
    assert not same(first[7], other[7])


def test_worker_processes_give_the_same_samples(data: Path | None) -> None:
    samples = Workload(**TINY).dataset(TRAIN, data=data, seed=0)
    few = torch.utils.data.Subset(samples, range(6))
    alone = list(DataLoader(few, batch_size=2))
    # forkserver: samples are pickled, and forking a process with threads may hang.
    workers = DataLoader(few, batch_size=2, num_workers=2, multiprocessing_context="forkserver")
    for expected, found in zip(alone, workers, strict=True):
        assert same(expected, found)


def test_a_third_of_the_patches_is_centred_on_foreground() -> None:
    workload = Workload(**{**TINY, "patch": (8, 8, 8), "filters": (4, 4, 4)})
    samples = workload.dataset(TRAIN, data=None, seed=0)
    # The crop's centre is voxel 4 of 8, or 3 where the patch was mirrored.
    centres = [samples[index]["label"][0, 3:5, 3:5, 3:5] for index in range(300)]
    share = sum(bool((centre > 0).any()) for centre in centres) / len(centres)
    # A third by force; of the others, those next to an organ.
    assert 1 / 3 - 0.08 < share < 1 / 3 + 0.2


def test_volumes_are_not_those_trained_on_and_patches_are_mirrored() -> None:
    workload = Workload(**{**TINY, "patch": (36, 36, 24), "cases": 2})
    trained = workload.dataset(TRAIN, data=None, seed=0)
    held_out = workload.dataset(INFER, data=None, seed=0)
    assert held_out[0]["image"].shape == (1, 36, 36, 24)
    whole = [trained[index]["image"] for index in range(40)]
    assert len({tuple(image[0, 14:22, 18, 12].tolist()) for image in whole}) > 4
    assert not any(same(trained[index], held_out[0]) for index in range(40))


def test_volume_smaller_than_the_patch_is_padded_with_air() -> None:
    workload = Workload(**{**TINY, "volume": (16, 30, 16)})
    sample = workload.dataset(TRAIN, data=None, seed=0)[0]
    assert sample["image"].shape == (1, 24, 24, 16)
    assert (sample["image"][:, :4] == -1).all() and (sample["label"][:, :4] == 0).all()


def test_places_hold_every_foreground_class_equally_often() -> None:
    label = torch.zeros(1, 10, 10, 10, dtype=torch.uint8)
    label[0, :5] = 1
    label[0, 9, 9, 9] = 2
    found = places(label)
    values = label.ravel()[found["foreground"]]
    assert (values == 1).sum() == (values == 2).sum() > 0
    assert (label.ravel()[found["background"]] == 0).all()


@pytest.mark.parametrize("value", [0, 1])
def test_places_of_a_case_without_foreground_or_background_are_its_voxels(value: int) -> None:
    found = places(torch.full((1, 4, 4, 4), value, dtype=torch.uint8))
    assert len(found["foreground"]) > 0 and len(found["background"]) > 0


def test_files_are_resampled_to_the_median_spacing_in_patient_order(folder: Path) -> None:
    workload = Workload(**TINY)
    volumes = workload.dataset(INFER, data=folder, seed=0)
    shapes = {tuple(volume["image"].shape) for volume in volumes}
    assert all(abs(size - 36) <= 4 for shape in shapes for size in shape[1:3])
    sizes = nibabel.load(folder / "imagesTr" / "phantom_000.nii.gz").header.get_zooms()
    double = "x".join(str(2 * float(size)) for size in sizes)
    halved = Workload(**{**TINY, "spacing_mm": double}).dataset(INFER, data=folder, seed=0)
    assert tuple(halved[0]["image"].shape) == pytest.approx((1, 18, 18, 12), abs=1)


def test_orientation_of_the_file_does_not_matter(folder: Path) -> None:
    workload = Workload(**TINY)
    before = [volume["image"].clone() for volume in workload.dataset(INFER, data=folder, seed=0)]
    for path in folder.glob("*Tr/*.nii.gz"):
        old = nibabel.load(path)
        nibabel.save(
            nibabel.as_closest_canonical(old).as_reoriented([[1, 1], [2, 1], [0, -1]]), path
        )
    after = workload.dataset(INFER, data=folder, seed=0)
    for expected, found in zip(before, after, strict=True):
        assert expected.shape == found["image"].shape
        assert (expected - found["image"]).abs().mean() < 0.02


def test_prepared_cases_are_kept_and_used_again(folder: Path, cache: Path) -> None:
    workload = Workload(**TINY)
    first = workload.dataset(TRAIN, data=folder, seed=0)[0]
    stamps = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    assert len(list(cache.iterdir())) == 4
    assert same(first, workload.dataset(TRAIN, data=folder, seed=0)[0])
    assert stamps == {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}


def test_changed_file_or_parameter_is_prepared_anew(folder: Path, cache: Path) -> None:
    Workload(**TINY).dataset(INFER, data=folder, seed=0)
    before = len(list(cache.iterdir()))
    Workload(**{**TINY, "window_hu": (-100, 200)}).dataset(INFER, data=folder, seed=0)
    assert len(list(cache.iterdir())) == 2 * before
    label = folder / "labelsTr" / "phantom_000.nii.gz"
    nifti = nibabel.load(label)
    empty = nibabel.Nifti1Image(np.zeros(nifti.shape, dtype=np.uint8), nifti.affine)
    nibabel.save(empty, label)
    assert not Workload(**TINY).dataset(INFER, data=folder, seed=0)[0]["label"].any()


def test_cache_that_cannot_be_written_says_what_to_set(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="set XDG_CACHE_HOME"):
        Workload(**TINY).dataset(INFER, data=folder, seed=0)


def test_several_modalities_become_channels(tmp_path: Path) -> None:
    import json

    folder = tmp_path / "data"
    write(folder, cases=2, seed=0, shape=(24, 24, 16))
    for path in folder.glob("imagesTr/*.nii.gz"):
        old = nibabel.load(path)
        array: Any = np.asarray(old.dataobj)
        nibabel.save(nibabel.Nifti1Image(np.stack([array, array // 2], axis=-1), old.affine), path)
    content = json.loads((folder / "dataset.json").read_text())
    content["modality"] = {"0": "T1", "1": "T2"}
    (folder / "dataset.json").write_text(json.dumps(content))
    workload = Workload(**{**TINY, "channels": 2})
    workload.check_data(folder)
    image = workload.dataset(INFER, data=folder, seed=0)[0]["image"]
    assert image.shape[0] == 2
    # Not CT: each channel has mean 0 and standard deviation 1.
    assert image.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-4)
    assert image.std(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1], abs=1e-2)
    assert workload.dataset(TRAIN, data=folder, seed=0)[0]["image"].shape == (2, 24, 24, 16)
