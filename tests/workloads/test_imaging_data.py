"""Phantoms of known volume; patches and volumes of them and of NIfTI files, repeatable."""

import errno
import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from bench.core.errors import UsageError
from workloads._imaging import phantom as phantoms
from workloads._imaging.imaging_data import Preparation, places
from workloads._imaging.phantom import Ellipsoid, anatomy, paint, phantom, write
from workloads.imaging import Workload

TINY = Workload.sizes["tiny"]
TRAIN, INFER = Workload.phases


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gapbench" / "imaging"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data", cases=6, seed=0, shape=(36, 36, 24))
    return tmp_path / "data"


def dataset(phase: Any, *, data: Path | None = None, seed: int = 0, **changed: Any) -> Any:
    return Workload(**{**TINY, **changed}).dataset(phase, data=data, seed=seed)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in ("image", "label"))


def test_patches_depend_on_seed_and_index_alone_also_as_sent_to_a_worker(folder: Path) -> None:
    for data in (None, folder):
        first, again, other = (dataset(TRAIN, data=data, seed=seed) for seed in (3, 3, 4))
        assert len(first) == 250 * 2
        image, label = first[0]["image"], first[0]["label"]
        assert type(image) is torch.Tensor and type(label) is torch.Tensor
        assert image.shape == label.shape == (1, 24, 24, 16)
        assert image.dtype == torch.float32 and label.dtype == torch.uint8
        assert image.min() >= -1 and image.max() <= 1 and label.max() < 3
        expected, sent = first[7], pickle.loads(pickle.dumps(again))
        assert not same(expected, first[8]) and not same(expected, other[7])
        torch.manual_seed(2)  # a worker has its own
        np.random.seed(2)
        assert same(expected, again[7]) and same(expected, sent[7])
        with pytest.raises(IndexError):
            first[len(first)]


def test_a_third_of_the_patches_is_centred_on_foreground() -> None:
    samples = dataset(TRAIN, patch=(8, 8, 8), filters=(4, 4, 4), cases=4)
    # The crop's centre is voxel 4 of 8, or 3 where the patch was mirrored.
    centres = [samples[index]["label"][0, 3:5, 3:5, 3:5] for index in range(300)]
    share = sum(bool((centre > 0).any()) for centre in centres) / len(centres)
    # A third by force; of the others, few next to an organ.
    assert share == pytest.approx(1 / 3, abs=0.08)


def test_volumes_are_not_those_trained_on_and_patches_are_mirrored_and_padded() -> None:
    trained, held_out = (dataset(one, patch=(36, 36, 24), cases=2) for one in (TRAIN, INFER))
    assert held_out[0]["image"].shape == (1, 36, 36, 24)
    whole = [trained[index] for index in range(40)]
    assert len({tuple(one["image"][0, 14:22, 18, 12].tolist()) for one in whole}) > 4
    assert not any(same(one, held_out[0]) for one in whole)
    # A volume smaller than the patch is padded with air.
    sample = dataset(TRAIN, volume=(16, 30, 16), cases=1)[0]
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
    before = [volume["image"].clone() for volume in dataset(INFER, data=folder)]
    assert all(abs(size - 36) <= 4 for image in before for size in image.shape[1:3])
    sizes = nibabel.load(folder / "imagesTr" / "phantom_000.nii.gz").header.get_zooms()
    double = "x".join(str(2 * float(size)) for size in sizes)
    halved = dataset(INFER, data=folder, spacing_mm=double)
    assert tuple(halved[0]["image"].shape) == pytest.approx((1, 18, 18, 12), abs=1)
    for path in folder.glob("*Tr/*.nii.gz"):
        nifti = nibabel.as_closest_canonical(nibabel.load(path))
        nibabel.save(nifti.as_reoriented([[1, 1], [2, 1], [0, -1]]), path)
    for expected, found in zip(before, dataset(INFER, data=folder), strict=True):
        assert expected.shape == found["image"].shape
        assert (expected - found["image"]).abs().mean() < 0.02


def test_prepared_cases_are_kept_until_a_file_or_parameter_changes(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}

    first, before = dataset(TRAIN, data=folder)[0], stamps()
    assert len(list(cache.iterdir())) == 4
    assert same(first, dataset(TRAIN, data=folder)[0]) and before == stamps()
    dataset(TRAIN, data=folder, window_hu=(-100, 200))
    assert len(list(cache.iterdir())) == 8
    for label in (folder / "labelsTr").iterdir():
        nifti = nibabel.load(label)
        empty = np.zeros(nifti.shape, dtype=np.uint8)
        nibabel.save(nibabel.Nifti1Image(empty, nifti.affine), label)
    assert not dataset(TRAIN, data=folder)[0]["label"].any()
    # Another process was faster: its entry is taken, and nothing else is left.
    shutil.rmtree(cache)

    def late(beside: Path, folder: Path) -> None:
        shutil.copytree(beside, folder)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", late)
        assert len(dataset(INFER, data=folder)) == len(list(cache.iterdir())) == 2
    # Elsewhere where that cannot be written; refused where there is no room at all.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert len(dataset(INFER, data=folder)) == 2

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UsageError, match="No space left on device; set XDG_CACHE_HOME"):
        dataset(TRAIN, data=folder)


def test_each_channel_is_normalised_by_its_name_whatever_the_order() -> None:
    values = torch.linspace(-1000, 3000, 24**3).reshape(1, 24, 24, 24)
    uniform = (-np.sqrt(3), np.sqrt(3), 1.0)  # z-scored
    expected = {
        "CT": (-1.0, 1.0, None),
        "ct": (-1.0, 1.0, None),
        "PET": uniform,
        "CTA": uniform,
        "noNorm": (-1000.0, 3000.0, None),
        "rescale_to_0_1": (0.0, 1.0, None),
        "rgb_to_0_1": (-1000 / 255, 3000 / 255, None),
    }
    for names in (tuple(expected), tuple(reversed(expected))):
        made = Preparation(channel_names=names, window_hu=(-160, 240), pad_to=None, spacing_mm=None)
        image = values.repeat(len(names), 1, 1, 1)
        prepared = made.prepare(image=image, label=torch.zeros_like(values))["image"]
        for name, channel in zip(names, prepared, strict=True):
            low, high, spread = expected[name]
            assert channel.min() == pytest.approx(low, rel=1e-3)
            assert channel.max() == pytest.approx(high, rel=1e-3)
            assert spread is None or channel.std() == pytest.approx(spread, rel=1e-3)


def test_two_channels_of_nnunet_and_of_the_decathlon_give_the_same_patches(
    folder: Path, tmp_path: Path
) -> None:
    nnunet = tmp_path / "nnunet"
    shutil.copytree(folder / "labelsTr", nnunet / "labelsTr")
    (nnunet / "imagesTr").mkdir()
    for path in (folder / "imagesTr").iterdir():
        nifti = nibabel.load(path)
        array = np.asarray(nifti.dataobj)
        channels = [array, array // 2]
        stem = path.name.removesuffix(".nii.gz")
        for number, channel in enumerate(channels):
            apart = nnunet / "imagesTr" / f"{stem}_{number:04d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(channel, nifti.affine), apart)
        nibabel.save(nibabel.Nifti1Image(np.stack(channels, axis=-1), nifti.affine), path)
    content = json.loads((folder / "dataset.json").read_text())
    content["modality"] = {"0": "CT", "1": "PET"}
    (folder / "dataset.json").write_text(json.dumps(content))
    content["channel_names"] = content.pop("modality")
    content["labels"] = {name: int(number) for number, name in content["labels"].items()}
    del content["training"]
    (nnunet / "dataset.json").write_text(json.dumps(content))
    for data in (folder, nnunet):
        Workload(**{**TINY, "channels": 2}).check_data(data)
    for phase in (TRAIN, INFER):
        one, other = (dataset(phase, data=data, channels=2) for data in (folder, nnunet))
        assert len(one) == len(other)
        assert all(same(one[index], other[index]) for index in range(min(len(one), 3)))
    ct, pet = one[0]["image"]
    assert (ct.min(), ct.max()) == (-1, 1)
    assert pet.mean() == pytest.approx(0, abs=1e-4) and pet.std() == pytest.approx(1, abs=1e-2)


def parts_of(*, seed: int, classes: int) -> list[Ellipsoid]:
    return anatomy(np.random.default_rng(seed), classes=classes)


def test_painted_ellipsoid_and_organ_with_lesions_have_the_analytic_volume() -> None:
    part = Ellipsoid(centre=(0.1, -0.2, 0.05), radii=(0.5, 0.4, 0.6), hu=70.0, label=1)
    painted = [([part], part)]
    for seed in range(5):
        parts = parts_of(seed=seed, classes=3)
        painted.append((parts, next(part for part in parts if part.label == 1)))
    for parts, organ in painted:
        _, label = paint(parts, shape=(72, 80, 60))
        # Its share of the field of view, lesions included, as it lies inside.
        assert (label > 0).mean() == pytest.approx(math.pi / 6 * math.prod(organ.radii), rel=0.02)


def test_every_class_is_present_and_organs_do_not_touch() -> None:
    for classes in (2, 3, 4, 6, 10):
        for index in range(3):
            _, label = phantom(shape=(64, 64, 48), classes=classes, seed=1, index=index)
            assert set(np.unique(label)) == set(range(classes))
        parts = parts_of(seed=3, classes=classes)
        organs = [part for part in parts if 0 < part.label < classes - 1]
        _, together = paint(organs, shape=(96, 96, 64))
        for organ in organs:
            _, alone = paint([organ], shape=(96, 96, 64))
            assert (together == organ.label).sum() == (alone > 0).sum()


def test_tissues_have_their_hounsfield_units_and_a_seed_and_index_their_patient() -> None:
    (first, second), label = phantom(shape=(64, 64, 48), classes=3, seed=0, index=0, channels=2)
    assert first.dtype == np.float32 and first.shape == (64, 64, 48)
    assert first[:6, :6].mean() == pytest.approx(phantoms.AIR_HU, abs=15)
    assert np.median(first[label == 1]) == pytest.approx(phantoms.ORGAN_HU[0], abs=5)
    lesion = np.percentile(first[label == 2], 75)
    assert lesion == pytest.approx(phantoms.LESION_HU, abs=phantoms.NOISE_HU)
    assert first.min() >= -1024
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
