"""Phantoms of known volume; patches and volumes of them and of NIfTI files, repeatable."""

import errno
import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from bench.core.errors import UsageError
from workloads._imaging import phantom as phantoms
from workloads._imaging.imaging_data import Preparation, places
from workloads._imaging.phantom import Ellipsoid, anatomy, paint, phantom, write
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


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in ("image", "label"))


@pytest.mark.parametrize("source", ["generated", "files"])
def test_patches_depend_on_seed_and_index_alone_also_in_workers(source: str, folder: Path) -> None:
    workload, data = Workload(**TINY), folder if source == "files" else None
    first, again, other = (workload.dataset(TRAIN, data=data, seed=seed) for seed in (3, 3, 4))
    assert len(first) == 250 * workload.batch
    image, label = first[0]["image"], first[0]["label"]
    assert type(image) is torch.Tensor and type(label) is torch.Tensor
    assert image.shape == label.shape == (1, 24, 24, 16)
    assert image.dtype == torch.float32 and label.dtype == torch.uint8
    assert image.min() >= -1 and image.max() <= 1 and label.max() < workload.classes
    assert same(first[7], again[7]) and same(first[2], again[2])
    assert not same(first[7], first[8]) and not same(first[7], other[7])
    with pytest.raises(IndexError):
        first[len(first)]
    few = torch.utils.data.Subset(first, range(6))
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
    # A volume smaller than the patch is padded with air.
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
    for value in (0, 1):  # a case without foreground or background
        found = places(torch.full((1, 4, 4, 4), value, dtype=torch.uint8))
        assert len(found["foreground"]) > 0 and len(found["background"]) > 0


def test_files_are_resampled_to_the_median_spacing_in_whatever_orientation(folder: Path) -> None:
    workload = Workload(**TINY)
    before = [volume["image"].clone() for volume in workload.dataset(INFER, data=folder, seed=0)]
    assert all(abs(size - 36) <= 4 for image in before for size in image.shape[1:3])
    sizes = nibabel.load(folder / "imagesTr" / "phantom_000.nii.gz").header.get_zooms()
    double = "x".join(str(2 * float(size)) for size in sizes)
    halved = Workload(**{**TINY, "spacing_mm": double}).dataset(INFER, data=folder, seed=0)
    assert tuple(halved[0]["image"].shape) == pytest.approx((1, 18, 18, 12), abs=1)
    for path in folder.glob("*Tr/*.nii.gz"):
        nifti = nibabel.as_closest_canonical(nibabel.load(path))
        nibabel.save(nifti.as_reoriented([[1, 1], [2, 1], [0, -1]]), path)
    after = workload.dataset(INFER, data=folder, seed=0)
    for expected, found in zip(before, after, strict=True):
        assert expected.shape == found["image"].shape
        assert (expected - found["image"]).abs().mean() < 0.02


def test_prepared_cases_are_kept_until_a_file_or_parameter_changes(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = Workload(**TINY)
    first = workload.dataset(TRAIN, data=folder, seed=0)[0]
    stamps = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    assert len(list(cache.iterdir())) == 4
    assert same(first, workload.dataset(TRAIN, data=folder, seed=0)[0])
    assert stamps == {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    Workload(**{**TINY, "window_hu": (-100, 200)}).dataset(TRAIN, data=folder, seed=0)
    assert len(list(cache.iterdir())) == 8
    for label in (folder / "labelsTr").iterdir():
        nifti = nibabel.load(label)
        empty = np.zeros(nifti.shape, dtype=np.uint8)
        nibabel.save(nibabel.Nifti1Image(empty, nifti.affine), label)
    assert not workload.dataset(TRAIN, data=folder, seed=0)[0]["label"].any()
    # Elsewhere where that cannot be written; refused where there is no room at all.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert len(workload.dataset(INFER, data=folder, seed=0)) == 2

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UsageError, match="No space left on device; set XDG_CACHE_HOME"):
        workload.dataset(TRAIN, data=folder, seed=0)


def test_several_modalities_become_channels(folder: Path) -> None:
    for path in folder.glob("imagesTr/*.nii.gz"):
        nifti = nibabel.load(path)
        array = np.asarray(nifti.dataobj)
        both = np.stack([array, array // 2], axis=-1)
        nibabel.save(nibabel.Nifti1Image(both, nifti.affine), path)
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


def test_each_channel_is_normalised_by_its_name_whatever_the_order() -> None:
    values = torch.linspace(-1000, 3000, 24**3).reshape(1, 24, 24, 24)
    label = torch.zeros(1, 24, 24, 24)
    expected = {
        "CT": (-1.0, 1.0, None),
        "ct": (-1.0, 1.0, None),
        "PET": (-np.sqrt(3), np.sqrt(3), 1.0),  # a uniform distribution, z-scored
        "CTA": (-np.sqrt(3), np.sqrt(3), 1.0),
        "noNorm": (-1000.0, 3000.0, None),
        "rescale_to_0_1": (0.0, 1.0, None),
        "rgb_to_0_1": (-1000 / 255, 3000 / 255, None),
    }
    for names in itertools.permutations(expected, 3):
        made = Preparation(channel_names=names, window_hu=(-160, 240), pad_to=None, spacing_mm=None)
        image = made.prepare({"image": values.repeat(3, 1, 1, 1), "label": label})["image"]
        for name, channel in zip(names, image, strict=True):
            low, high, spread = expected[name]
            assert channel.min() == pytest.approx(low, rel=1e-3)
            assert channel.max() == pytest.approx(high, rel=1e-3)
            assert spread is None or channel.std() == pytest.approx(spread, rel=1e-3)


def test_a_folder_of_nnunet_and_of_the_decathlon_give_the_same_patches(
    folder: Path, tmp_path: Path
) -> None:
    workload = Workload(**{**TINY, "channels": 2})
    nnunet = tmp_path / "nnunet"
    for name in ("imagesTr", "labelsTr"):
        shutil.copytree(folder / name, nnunet / name)
    for path in (folder / "imagesTr").iterdir():
        nifti = nibabel.load(path)
        array = np.asarray(nifti.dataobj)
        both = np.stack([array, array // 2], axis=-1)
        nibabel.save(nibabel.Nifti1Image(both, nifti.affine), path)
        copy, stem = nnunet / "imagesTr" / path.name, path.name.removesuffix(".nii.gz")
        half = nibabel.Nifti1Image(array // 2, nifti.affine)
        nibabel.save(half, copy.with_name(f"{stem}_0001.nii.gz"))
        copy.rename(copy.with_name(f"{stem}_0000.nii.gz"))
    content = json.loads((folder / "dataset.json").read_text())
    content["modality"] = {"0": "CT", "1": "PET"}
    (folder / "dataset.json").write_text(json.dumps(content))
    content["channel_names"] = content.pop("modality")
    content["labels"] = {name: int(number) for number, name in content["labels"].items()}
    del content["training"]
    (nnunet / "dataset.json").write_text(json.dumps(content))
    for data in (folder, nnunet):
        workload.check_data(data)
    for phase in (TRAIN, INFER):
        one, other = (workload.dataset(phase, data=data, seed=0) for data in (folder, nnunet))
        assert len(one) == len(other)
        assert all(same(one[index], other[index]) for index in range(min(len(one), 3)))


def test_two_modalities_of_a_scanner_are_kept_apart(shared_case: Callable[[str], Path]) -> None:
    case = shared_case("05-petct")
    workload = Workload(**{**TINY, "channels": 2})
    for name, ct, pet in (("ct-first", 0, 1), ("pet-first", 1, 0)):
        image = workload.dataset(INFER, data=case / name, seed=0)[0]["image"]
        assert (image[ct].min(), image[ct].max()) == (-1, 1)
        assert image[pet].max() > 5 and image[pet].std() == pytest.approx(1, abs=1e-3)


def parts_of(*, seed: int, classes: int) -> list[Ellipsoid]:
    return anatomy(np.random.default_rng(seed), classes=classes)


def volume_fraction(part: Ellipsoid) -> float:
    """Share of the field of view, if it lies inside."""
    return math.pi / 6 * math.prod(part.radii)


def test_painted_ellipsoid_and_organ_with_lesions_have_the_analytic_volume() -> None:
    part = Ellipsoid(centre=(0.1, -0.2, 0.05), radii=(0.5, 0.4, 0.6), hu=70.0, label=1)
    _, label = paint([part], shape=(80, 96, 64))
    assert label.mean() == pytest.approx(volume_fraction(part), rel=0.01)
    for seed in range(5):
        parts = parts_of(seed=seed, classes=3)
        (organ,) = [part for part in parts if part.label == 1]
        _, label = paint(parts, shape=(72, 72, 60))
        assert (label > 0).mean() == pytest.approx(volume_fraction(organ), rel=0.02)


def test_every_class_is_present_and_organs_do_not_touch() -> None:
    for classes in (2, 3, 4, 6, 10):
        for index in range(4):
            _, label = phantom(shape=(64, 64, 48), classes=classes, seed=1, index=index)
            assert set(np.unique(label)) == set(range(classes))
    for classes in (4, 6, 10):
        parts = parts_of(seed=3, classes=classes)
        organs = [part for part in parts if 0 < part.label < classes - 1]
        _, together = paint(organs, shape=(96, 96, 64))
        for organ in organs:
            _, alone = paint([organ], shape=(96, 96, 64))
            assert (together == organ.label).sum() == (alone > 0).sum()


def test_tissues_have_their_hounsfield_units_and_a_seed_and_index_their_patient() -> None:
    image, label = phantom(shape=(64, 64, 48), classes=3, seed=0, index=0)
    assert image.dtype == np.float32 and image.shape == (1, 64, 64, 48)
    corner = image[0, :6, :6]
    assert corner.mean() == pytest.approx(phantoms.AIR_HU, abs=15)
    assert np.median(image[0][label == 1]) == pytest.approx(phantoms.ORGAN_HU[0], abs=5)
    assert np.percentile(image[0][label == 2], 75) == pytest.approx(
        phantoms.LESION_HU, abs=phantoms.NOISE_HU
    )
    assert image.min() >= -1024
    first, second = phantom(shape=(48, 48, 32), classes=3, seed=0, index=0, channels=2)[0]
    spread = (first - second)[first > -500].std() / np.sqrt(2)
    assert spread == pytest.approx(phantoms.NOISE_HU, rel=0.05)
    first, again, other, elsewhere = (
        phantom(shape=(24, 24, 16), classes=3, seed=seed, index=index)[0]
        for seed, index in [(5, 2), (5, 2), (5, 3), (6, 2)]
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first, elsewhere)
    with pytest.raises(ValueError, match="classes >= 2"):
        parts_of(seed=0, classes=1)
