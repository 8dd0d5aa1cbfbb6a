"""Folders for imaging as `bench run --data` takes them, or refuses them for the true cause."""

import gzip
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from bench.results.reader import read_rows
from tests.cli.conftest import Ask
from workloads._imaging.phantom import phantom

RUN = ("run", "--workload", "imaging-infer", "--size", "tiny", "--profile", "smoke")
FAKE = (*RUN, "--device", "fake", "--dry-run")


@pytest.fixture
def folder(ask: Ask, tmp_path: Path) -> Path:
    out = tmp_path / "data"
    ask("data", "phantom", out, "--cases", 2, "--shape", "16x14x12")
    return out


def test_nnunet_folders_run_and_the_rest_is_named(ask: Ask, folder: Path, tmp_path: Path) -> None:
    for image in (folder / "imagesTr").iterdir():
        image.rename(image.with_name(image.name.replace(".nii", "_0000.nii")))
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    path = folder / "dataset.json"
    path.write_text(json.dumps(content), encoding="utf-16")
    ask(*RUN, "--device", "fake", "--out", tmp_path / "out", "--data", folder)
    for change, words in (
        ({"file_ending": ".mha"}, "this is nnU-Net v2 with \"file_ending\" '.mha'"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "modalities CT, PET, but"),
        ({"labels": {"background": 0, "organ": 1}}, "add --set classes=2"),
    ):
        path.write_text(json.dumps({**content, **change}))
        assert words in ask(*FAKE, "--data", folder, code=2).one_line
    path.write_text(json.dumps({**content, "channel_names": {"0": "CT", "1": "PET"}}))
    said = ask(*FAKE, "--data", folder, "--set", "channels=2", code=2).one_line
    assert "imagesTr/phantom_000_0001.nii.gz is missing" in said


def test_volumes_that_contradict_themselves_or_hold_no_numbers_are_named(
    ask: Ask, folder: Path
) -> None:
    image = folder / "imagesTr" / "phantom_001.nii.gz"
    nifti = nibabel.load(image)
    voxels = np.asarray(nifti.dataobj)
    nibabel.save(nibabel.Nifti1Image(voxels.astype("complex64"), nifti.affine), image)
    assert f"{image}: its voxels are" in ask(*FAKE, "--data", folder, code=2).one_line
    wrong = nibabel.Nifti1Image(voxels, nifti.affine)
    wrong.header["pixdim"][3] *= 1.02
    image.write_bytes(gzip.compress(wrong.to_bytes()))
    assert f"{image} contradicts itself" in ask(*FAKE, "--data", folder, code=2).one_line
    # Zipped, though the name does not say so; as big numbers as there are.
    plain = nibabel.Nifti1Image(voxels.astype("u8"), nifti.affine, dtype="u8")
    image.unlink()
    image.with_suffix("").write_bytes(gzip.compress(plain.to_bytes()))
    path = folder / "dataset.json"
    path.write_text(
        path.read_text().replace("imagesTr/phantom_001.nii.gz", "imagesTr/phantom_001.nii")
    )
    ask(*FAKE, "--data", folder)


def test_every_held_out_volume_is_inferred_and_counted_by_its_own_size(
    ask: Ask, tmp_path: Path
) -> None:
    # Every fifth is held out: two of one window of 24 x 24 x 16 and one of 2 x 2 x 1.
    shapes = {0: (24, 24, 16), 5: (20, 24, 16), 10: (36, 36, 16)}
    folder = tmp_path / "mixed"
    names = [f"case_{number:02d}.nii.gz" for number in range(11)]
    for number, name in enumerate(names):
        shape = shapes.get(number, (24, 24, 16))
        image, label = phantom(shape=shape, classes=3, seed=0, index=number)
        for kind, array in (("imagesTr", image[0].astype(np.int16)), ("labelsTr", label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / kind / name)
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ", "2": "lesion"},
        "training": [{"image": f"imagesTr/{one}", "label": f"labelsTr/{one}"} for one in names],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    ask(*RUN, "--device", "fake", "--out", tmp_path / "usual")
    # Chosen by the largest held-out volume's headers, on the fake device too.
    ask(*RUN, "--device", "fake", "--data", folder, "--out", tmp_path / "fake")
    (planned,) = read_rows(next((tmp_path / "fake").glob("*.csv")))
    out = tmp_path / "rows"
    said = ask(*RUN, "--device", "cpu", "--threads", 1, "--data", folder, "--out", out)
    sizes = "1 of 7,680 voxels, 1 of 9,216 voxels, 1 of 20,736 voxels"
    assert f"used 3 volumes of its data: {sizes}" in said.out
    (path,) = out.glob("*.csv")
    (row,) = read_rows(path)
    assert (row["distinct_items"], row["items"]) == (3, row["steps"])
    assert int(str(row["items"])) % 3 == 0, "whole rounds"
    assert row["mem_estimate_bytes"] == planned["mem_estimate_bytes"]
    assert row["item_sizes"] == "1 of 7680; 1 of 9216; 1 of 20736"
    assert row["elements_per_item"] == pytest.approx((7680 + 9216 + 20736) / 3)
    # A mean of 2 windows where the generated volume has 8, in FLOPs and bytes alike (48 FLOP/byte);
    # four in turn need two passes of two, and a single one reads the weights for itself.
    (generated,) = read_rows(next((tmp_path / "usual").glob("*.csv")))
    assert row["flops_per_item"] == pytest.approx(float(str(generated["flops_per_item"])) * 2 / 8)
    least = [float(str(one["bytes_per_item"])) for one in (row, generated)]
    assert least[0] / least[1] == pytest.approx(2 / 8, rel=0.1)
