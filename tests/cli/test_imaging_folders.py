"""Folders for imaging as `bench run --data` takes them, or refuses them for the true cause."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.cli.conftest import Ask
from tests.run.bench_process import rows_in
from workloads._imaging.phantom import phantom

RUN = ("run", "--workload", "imaging-infer", "--size", "tiny", "--profile", "smoke")
FAKE = (*RUN, "--device", "fake", "--dry-run")


def test_an_nnunet_folder_runs_and_what_is_wrong_in_a_folder_is_one_line(
    ask: Ask, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    ask("data", "phantom", folder, "--cases", 2, "--shape", "16x14x12")
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
    for name in ("._t", "t1", "t2", "t3"):
        image = folder / "imagesTs" / f"{name}_0000.nii.gz"
        shutil.copy(folder / "imagesTr" / "phantom_001_0000.nii.gz", image)
    assert "4 of 4 used: phantom_000, t1, t2, ...\n" in ask(*FAKE, "--data", folder).out
    said = ask(*FAKE, "--data", folder, "--cases", 2).out
    assert "2 of 4 used: phantom_000, t1; --cases 4 takes all\n" in said
    image.write_bytes(b"cut")
    assert f"{image} cannot be read" in ask(*FAKE, "--data", folder, code=2).one_line
    image.unlink()
    two = {"channel_names": {"0": "CT", "1": "PET"}}
    for change, more, words in (
        ({"file_ending": ".mha"}, (), "this is nnU-Net v2 with \"file_ending\" '.mha'"),
        (two, (), "modalities CT, PET, but"),
        (two, ("--set", "channels=2"), "imagesTr/phantom_000_0001.nii.gz is missing"),
        ({"labels": {"background": 0, "organ": 1}}, (), "add --set classes=2"),
    ):
        path.write_text(json.dumps({**content, **change}))
        assert words in ask(*FAKE, "--data", folder, *more, code=2).one_line
    path.write_text(json.dumps(content))
    image = folder / "imagesTr" / "phantom_001_0000.nii.gz"
    nifti = nibabel.load(image)
    voxels = np.asarray(nifti.dataobj).astype("complex64")
    nibabel.save(nibabel.Nifti1Image(voxels, nifti.affine), image)
    assert f"{image}: its voxels are" in ask(*FAKE, "--data", folder, code=2).one_line


def test_every_held_out_volume_is_inferred_and_counted_by_its_own_size(
    ask: Ask, tmp_path: Path
) -> None:
    # Every fifth is held out: two of one window of 24 x 24 x 16 and one of 2 x 2 x 1, tested too.
    shapes = {0: (24, 24, 16), 5: (20, 24, 16), 10: (36, 36, 16)}
    folder = tmp_path / "mixed"
    names = [f"case.{number:02d}.nii.gz" for number in range(11)]
    for number, name in enumerate(names):
        shape = shapes.get(number, (24, 24, 16))
        image, label = phantom(shape=shape, classes=3, seed=0, index=number)
        images = [("imagesTr", image[0].astype(np.int16)), ("labelsTr", label)]
        for kind, array in [*images, ("imagesTs", images[0][1])][: 2 + (number == 10)]:
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
    (planned,) = rows_in(tmp_path / "fake")
    out = tmp_path / "rows"
    said = ask(*RUN, "--device", "cpu", "--threads", 1, "--data", folder, "--out", out)
    sizes = "1 of 7,680 voxels, 1 of 9,216 voxels, 2 of 20,736 voxels"
    named = "imaging-infer: cases held out, 4 of 4 used: case.00, case.05, case.10, ..."
    assert named in said.out and named in said.err
    assert f"used 4 volumes of its data: {sizes}" in said.out
    (row,) = rows_in(out)
    assert (row["distinct_items"], row["items"]) == (4, row["steps"])
    assert int(str(row["items"])) % 4 == 0, "whole rounds"
    assert row["mem_estimate_bytes"] == planned["mem_estimate_bytes"]
    assert row["item_sizes"] == "1 of 7680; 1 of 9216; 2 of 20736"
    assert row["elements_per_item"] == pytest.approx((7680 + 9216 + 2 * 20736) / 4)
    assert named.partition(": ")[2] in next(out.glob("*.env.json")).read_text()
    # A mean of (1 + 1 + 4 + 4) / 4 windows where the generated volume has 8, in FLOPs and bytes
    # alike (48 FLOP/byte).
    (generated,) = rows_in(tmp_path / "usual")
    assert row["flops_per_item"] == pytest.approx(float(str(generated["flops_per_item"])) * 2.5 / 8)
    least = [float(str(one["bytes_per_item"])) for one in (row, generated)]
    assert least[0] / least[1] == pytest.approx(2.5 / 8, rel=0.1)
