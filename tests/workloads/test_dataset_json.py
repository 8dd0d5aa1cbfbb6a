"""dataset.json of both kinds, in any of JSON's encodings; what cannot be read is named right."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import DataError
from workloads._imaging.dataset_json import Folder, read_folder

NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=6)
SOME_NAMES = st.lists(NAMES.filter(lambda name: name != "ignore"), min_size=1, unique=True)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
NNUNET: dict[str, Any] = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "organ": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def folder_of(root: Path, content: object, *, encoding: str = "utf-8", **files: list[str]) -> Path:
    """Write dataset.json and empty files."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    (root / "dataset.json").write_bytes(text.encode(encoding, "surrogatepass"))
    for folder, names in files.items():
        (root / folder).mkdir()
        for name in names:
            (root / folder / name).touch()
    return root


def reason_for(root: Path, content: object, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_folder(folder_of(root, content, **more))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def numbered(names: list[str]) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


@given(
    channels=SOME_NAMES,
    classes=SOME_NAMES,
    cases=st.integers(1, 4),
    ending=st.sampled_from([".nii.gz", ".nii"]),
    encoding=st.sampled_from(ENCODINGS),
)
def test_both_kinds_give_the_same_folder_in_every_encoding(
    channels: list[str], classes: list[str], cases: int, ending: str, encoding: str
) -> None:
    stems = [f"case_{number:03d}" for number in range(cases)]
    images = [f"{stem}_{n:04d}{ending}" for stem in stems for n in range(len(channels))]
    nnunet = {
        "channel_names": numbered(channels),
        "labels": {name: number for number, name in enumerate(classes)},
        "numTraining": cases,
        "file_ending": ending,
    }
    decathlon = {
        "modality": numbered(channels),
        "labels": numbered(classes),
        "training": [
            {"image": f".\\imagesTr\\{stem}{ending}", "label": f"labelsTr/{stem}{ending}"}
            for stem in stems
        ],
    }
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = [*images, f"._{images[0]}", "notes.txt"]
        found = read_folder(folder_of(root, nnunet, encoding=encoding, imagesTr=files))
        assert (found.classes, found.channels) == (tuple(classes), tuple(channels))
        assert [path.name for case in found.training for path in case.images] == images
        assert [case.label for case in found.training] == [
            root / "labelsTr" / f"{stem}{ending}" for stem in stems
        ]
        # Listed without the channel's number, as nnU-Net v1 did.
        assert read_folder(folder_of(root, decathlon, encoding=encoding)) == found


@given(data=st.data())
def test_a_damaged_file_is_refused_in_one_line_or_still_read(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(NNUNET, indent=1), "utf-8")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    with tempfile.TemporaryDirectory() as name:
        root = folder_of(Path(name), "", imagesTr=["a_0000.nii.gz", "b_0000.nii.gz"])
        (root / "dataset.json").write_bytes(raw)
        try:
            assert isinstance(read_folder(root), Folder)
        except DataError as error:
            assert str(root / "dataset.json") in str(error)
            assert "not readable JSON" not in str(error) or ": line " in str(error)


def test_the_line_of_a_mistake_and_its_cause_are_named(tmp_path: Path) -> None:
    for text, words in {
        '{\n "labels": {"0": "a"},\n}': "line 3.*comma at the end of line 2",
        '{\n "labels": [\n  1,\n  2,\n ]}': "line 5.*comma at the end of line 4",
        '{"labels": 1, # all\n}': "line 1.*JSON has no comments",
        "{\n\n // all\n}": "line 3.*JSON has no comments",
        '{"labels": 1\n "modality": 2}': "line 2.*Expecting ',' delimiter.*modality",
        "": "line 1",
    }.items():
        with pytest.raises(DataError, match=f"is not readable JSON: {words}"):
            read_folder(folder_of(tmp_path, text))
    latin = '{\n "labels": {"0": "L\xe4sion"}\n}'
    assert "line 2: not utf-8 text; save the file as UTF-8" in reason_for(
        tmp_path, latin, encoding="latin-1"
    )
    assert "is not readable JSON" in reason_for(tmp_path, "[" * 100_000)


def test_regions_are_classes_by_their_numbers(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    content = {**NNUNET, "labels": labels, "numTraining": 1, "regions_class_order": [1, 2, 3]}
    found = read_folder(folder_of(tmp_path, content, imagesTr=["a_0000.nii.gz"]))
    assert found.classes == ("background", "whole", "core", "enhancing")


def test_an_explicit_list_of_files_a_channel_is_read(tmp_path: Path) -> None:
    listed = {"x": {"images": ["a/ct.nii.gz", "b/pet.nii.gz"], "label": "x.nii.gz"}}
    (case,) = read_folder(folder_of(tmp_path, {**NNUNET, "dataset": listed})).training
    assert case.paths == tuple(
        tmp_path / name for name in ("a/ct.nii.gz", "b/pet.nii.gz", "x.nii.gz")
    )


def test_what_is_not_read_of_nnunet_is_named_as_that(tmp_path: Path) -> None:
    pair = {"image": "a.nii.gz", "label": "b.nii.gz"}
    for change, words in [
        ({"file_ending": ".nrrd"}, "nnU-Net v2 with \"file_ending\" '.nrrd'.*convert"),
        ({"labels": {"background": 0, "ignore": 1}}, 'nnU-Net v2 with a label "ignore"'),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "nnU-Net v2.*two names one number"),
        ({"labels": {"background": 0, "a": 2}}, '"labels" must be numbered.*has 0, 2'),
        ({"labels": {"background": 0, "1": "a"}}, "mixes names by number"),
        ({"labels": {"background": 0, "a": 1.5}}, r"Expected `int \| str \| array`.*labels"),
        ({"labels": ["background", "a"]}, "Expected `object`, got `array`.*labels"),
        ({"channel_names": {"0": "CT", "2": "PET"}}, '"channel_names" must be numbered.*has 0, 2'),
        ({"\ud800": 1}, "surrogates not allowed"),
        ({"numTraining": 7}, 'nnU-Net v2 and says "numTraining" 7, but imagesTr holds 2 cases'),
        ({"training": [pair, pair]}, "lists a.nii.gz twice"),
        ({"training": ["a.nii.gz"]}, r"Expected `object`, got `str`.*training\[0\]"),
    ]:  # fmt: skip
        images = tmp_path / "imagesTr"
        images.mkdir(exist_ok=True)
        for name in ("a_0000.nii.gz", "b_0000.nii.gz"):
            (images / name).touch()
        with pytest.raises(DataError, match=words):
            read_folder(folder_of(tmp_path, {**NNUNET, **change}))
    assert read_folder(folder_of(tmp_path, {**NNUNET, "numTraining": "2"})).channels
    for path in images.iterdir():
        path.rename(images / path.name.replace("_0000", ""))
    assert "this is nnU-Net v2, whose images are called CASE_0000.nii.gz" in reason_for(
        tmp_path, NNUNET
    )
    nameless = {key: value for key, value in NNUNET.items() if key != "channel_names"}
    assert 'no "modality" (Decathlon) and no "channel_names"' in reason_for(tmp_path, nameless)
    assert '"modality" must be numbered' in reason_for(
        tmp_path, {**nameless, "modality": {"1": "CT"}}
    )
