import gzip
import json
import math
from pathlib import Path

import pytest

from bench.core.errors import DataError
from bench.results.samples import append_samples, read_samples
from bench.results.store import samples_path


def _record(trial: int, **samples: object) -> dict[str, object]:
    return {"config_hash": "c", "device": "cpu", "trial": trial, "attempt": 1, **samples}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.samples.jsonl.gz"
    for trial in range(3):
        append_samples(path, _record(trial, warmup_step_s=[0.3, 0.2], step_s=[0.1 + 0.2] * 5))
    return path


def test_every_step_comes_back_exactly_and_by_any_gzip_tool(path: Path, tmp_path: Path) -> None:
    assert samples_path(tmp_path / "run.csv") == path
    read = read_samples(path)
    assert [record["trial"] for record in read] == [0, 1, 2]
    assert read[0] == _record(0, warmup_step_s=[0.3, 0.2], step_s=[0.1 + 0.2] * 5)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert [json.loads(line)["trial"] for line in lines] == [0, 1, 2]


def test_a_loss_that_diverged_is_kept_as_text(path: Path) -> None:
    append_samples(path, _record(3, loss=[1.5, math.nan, math.inf], note={"low": -math.inf}))
    last = read_samples(path)[-1]
    assert last["loss"] == [1.5, "nan", "inf"]
    assert last["note"] == {"low": "-inf"}


def test_a_large_trial_spans_many_pieces(path: Path) -> None:
    steps = [number / 7 for number in range(60_000)]
    append_samples(path, _record(3, step_s=steps))
    append_samples(path, _record(4))
    assert [record["trial"] for record in read_samples(path)] == [0, 1, 2, 3, 4]
    assert read_samples(path)[3]["step_s"] == steps


def test_a_last_trial_cut_at_any_byte_is_ignored_with_a_note(path: Path) -> None:
    whole = path.read_bytes()
    append_samples(path, _record(3, step_s=[0.5]))
    longer = path.read_bytes()
    for cut in range(len(whole) + 1, len(longer)):
        path.write_bytes(longer[:cut])
        notes: list[str] = []
        assert len(read_samples(path, note=notes.append)) == 3
        assert len(notes) == 1 and "cut short" in notes[0]


def test_appending_after_a_crash_removes_the_torn_trial(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    append_samples(path, _record(7))
    assert [record["trial"] for record in read_samples(path)] == [0, 1, 7]


def test_samples_that_no_row_can_claim_are_our_mistake(path: Path) -> None:
    with pytest.raises(ValueError, match="without device"):
        append_samples(path, {**_record(3), "device": None})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"trial,step\n1,2\n", "is not gzip, or is damaged"),
        (gzip.compress(b"no json"), "is not JSON"),
        (gzip.compress(b"[" * 100_000), "is not JSON"),
        (gzip.compress(b'{"trial": 1}\n'), "lacks one of"),
        (gzip.compress(b"\xff\xfe"), "is not JSON"),
    ],
    ids=range(5),  # gzip holds the time, and workers must agree on names
)
def test_what_is_no_samples_file_is_named(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_samples(path)
    assert str(path) in str(caught.value)


def test_damage_in_the_middle_is_not_taken_for_a_crash(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"byte \d+"):
        read_samples(path)
    with pytest.raises(DataError, match="No such file"):
        read_samples(path.with_name("none.gz"))
