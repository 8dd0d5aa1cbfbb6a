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

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
PAIR = {"image": "a.nii.gz", "label": "b.nii.gz"}
DECATHLON = {"modality": {"0": "CT"}, "labels": {"0": "no", "1": "organ"}, "training": [PAIR]}
NNUNET: dict[str, Any] = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "organ": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
FILES = ["a_0000.nii.gz", "b_0000.nii.gz"]


def folder_of(root: Path, content: object, *, images: list[str], encoding: str = "utf-8") -> Path:
    """Write dataset.json and empty images."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    (root / "dataset.json").write_bytes(text.encode(encoding, "surrogatepass"))
    (root / "imagesTr").mkdir(exist_ok=True)
    for name in images:
        (root / "imagesTr" / name).touch()
    return root


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_both_kinds_give_the_same_folder_in_every_encoding(
    encoding: str, ending: str, tmp_path: Path
) -> None:
    names = ("background", "Ünï ☃", "7", " x.nii ")
    stems = ["a", "a-1", "a_b", "x.nii"]
    images = [f"{stem}_{n:04d}{ending}" for stem in stems for n in range(4)]
    # Listed without the channel's number, as nnU-Net v1 did.
    pairs = [(f".\\imagesTr\\{stem}{ending}", f"labelsTr/{stem}{ending}") for stem in stems]
    numbered = {str(number): name for number, name in enumerate(names)}
    nnunet = {
        "channel_names": numbered,
        "labels": {name: number for number, name in enumerate(names)},
        "numTraining": 4,
        "file_ending": ending,
    }
    decathlon = {
        "modality": numbered,
        "labels": numbered,
        "training": [{"image": image, "label": label} for image, label in pairs],
    }
    files = [*images, f"._{images[0]}", "notes.txt"]
    found = read_folder(folder_of(tmp_path, nnunet, encoding=encoding, images=files))
    assert found.classes == found.channels == names
    assert [path.name for case in found.training for path in case.images] == images
    assert [case.label for case in found.training] == [tmp_path / label for _, label in pairs]
    assert read_folder(folder_of(tmp_path, decathlon, encoding=encoding, images=[])) == found


@given(data=st.data())
def test_a_damaged_file_is_refused_in_one_line_or_still_read(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(NNUNET, indent=1), "utf-8")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    with tempfile.TemporaryDirectory() as name:
        root = folder_of(Path(name), "", images=FILES)
        (root / "dataset.json").write_bytes(raw)
        try:
            assert isinstance(read_folder(root), Folder)
        except DataError as error:
            assert str(root / "dataset.json") in str(error)
            assert "not readable JSON" not in str(error) or ": line " in str(error)


def test_what_is_no_json_is_refused_by_its_line_and_cause(tmp_path: Path) -> None:
    for text, words in {
        '{\n "labels": {"0": "a"},\n}': "line 3.*comma at the end of line 2",
        '{\n "labels": [\n  1,\n  2,\n ]}': "line 5.*comma at the end of line 4",
        '{"labels": 1, # all\n}': "line 1.*JSON has no comments",
        "{\n\n // all\n}": "line 3.*JSON has no comments",
        '{"labels": 1\n "modality": 2}': "line 2.*Expecting ',' delimiter.*modality",
        '{\n "L\xe4sion": 1}': "line 2: not utf-8 text; save the file as UTF-8",
        **dict.fromkeys(("", "{", "\x00", "{'a': 1}"), "line 1"),
        "[" * 100_000: "",
    }.items():
        with pytest.raises(DataError, match=f"is not readable JSON: {words}") as caught:
            read_folder(folder_of(tmp_path, text, encoding="latin-1", images=[]))
        assert "\n" not in str(caught.value)


def test_content_that_is_not_read_is_named_as_what_it_is(tmp_path: Path) -> None:
    for base, change, words in [
        *[(content, None, "Expected `object`.*needs") for content in ([], 3, "a")],
        *[(DECATHLON, {key: value}, rf"Expected .*`\$\.{key}`")
          for key in DECATHLON for value in (None, {}, [], 7, "text")],
        *[(DECATHLON, {"training": [PAIR, entry]}, r"(Expected|Object missing) .*training\[1\]")
          for entry in ({}, 1, "x", {"image": "a"}, {"label": "a", "image": 3})],
        (DECATHLON, {"labels": {"0": "a", "1": "b", "3": "c"}}, '"labels" must be numbered'),
        (DECATHLON, {"modality": {"1": "CT"}}, '"modality" must be numbered.*has 1.*background'),
        (DECATHLON, {"training": [PAIR, PAIR]}, "lists a.nii.gz twice"),
        ({"labels": {"0": "a"}}, {}, r'no "modality" \(Decathlon\) and no "channel_names"'),
        (NNUNET, {"file_ending": ".nrrd"}, "nnU-Net v2 with \"file_ending\" '.nrrd'.*convert"),
        (NNUNET, {"file_ending": "nii"}, "lacks its dot"),
        (NNUNET, {"labels": {"background": 0, "ignore": 1}}, 'nnU-Net v2 with a label "ignore"'),
        (NNUNET, {"labels": {"no": 0, "a": 1, "b": 1}}, "nnU-Net v2.*two names one number"),
        (NNUNET, {"labels": {"no": 0, "a": 2}}, '"labels" must be numbered.*has 0, 2'),
        (NNUNET, {"labels": {"no": 0, "1": "a"}}, "mixes names by number"),
        (NNUNET, {"labels": {"no": 0, "a": 1.5}}, r"Expected `int \| str \| array`.*labels"),
        (NNUNET, {"channel_names": {"0": "CT", "2": "PET"}}, '"channel_names" must.*has 0, 2'),
        (NNUNET, {"\ud800": 1}, "surrogates not allowed"),
        (NNUNET, {"numTraining": 7}, 'says "numTraining" 7, but imagesTr holds 2 cases'),
        (NNUNET, {"file_ending": ".nii"}, "nnU-Net v2, whose images are called CASE_0000.nii "),
    ]:  # fmt: skip
        content = {**base, **change} if isinstance(base, dict) else json.dumps(base)
        with pytest.raises(DataError, match=words) as caught:
            read_folder(folder_of(tmp_path, content, images=FILES))
        assert "\n" not in str(caught.value)


def test_regions_lists_of_channels_and_a_count_in_quotes_are_read(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    listed = {"x": {"images": ["a/ct.nii.gz", "b/pet.nii.gz"], "label": "x.nii.gz"}}
    more = {"numTraining": "3", "regions_class_order": [1, 2, 3], "modality": {"0": "T1"}}
    content = {**NNUNET, "labels": labels, **more}
    found = read_folder(folder_of(tmp_path, content, images=FILES))
    assert found.classes == ("background", "whole", "core", "enhancing")
    assert found.channels == ("CT", "PET") and len(found.training) == 2
    (case,) = read_folder(folder_of(tmp_path, {**NNUNET, "dataset": listed}, images=[])).training
    names = ("a/ct.nii.gz", "b/pet.nii.gz", "x.nii.gz")
    assert case.paths == tuple(tmp_path / name for name in names)
