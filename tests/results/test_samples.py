import gzip
import json
import math
import random
from pathlib import Path

import pytest
from test_result_reader import mutated

from bench.core.errors import BenchError, DataError
from bench.results.samples import append_samples, read_samples
from bench.results.store import samples_path

STEPS = {"warmup_step_s": [0.3, 0.2], "step_s": [0.1 + 0.2] * 5}


def _record(trial: int, **samples: object) -> dict[str, object]:
    return {"config_hash": "c", "device": "cpu", "trial": trial, "attempt": 1, **samples}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = samples_path(tmp_path / "run.csv")
    for trial in range(3):
        append_samples(path, _record(trial, **STEPS))
    return path


def test_every_step_comes_back_exactly_and_by_any_gzip_tool(path: Path) -> None:
    assert path.name == "run.samples.jsonl.gz"
    assert read_samples(path) == [_record(trial, **STEPS) for trial in range(3)]
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert [json.loads(line)["trial"] for line in lines] == [0, 1, 2]
    # A trial that spans many pieces, and a loss that diverged, which is kept as text.
    steps = [number / 7 for number in range(60_000)]
    append_samples(path, _record(3, step_s=steps))
    append_samples(path, _record(4, loss=[1.5, math.nan, math.inf], note={"low": -math.inf}))
    *_, long, last = read_samples(path)
    assert (long["trial"], long["step_s"]) == (3, steps)
    assert (last["loss"], last["note"]) == ([1.5, "nan", "inf"], {"low": "-inf"})
    with pytest.raises(ValueError, match="without device"):
        append_samples(path, {**_record(5), "device": None})


def test_a_last_trial_cut_at_any_byte_is_ignored_with_a_note_and_then_removed(path: Path) -> None:
    whole = path.read_bytes()
    append_samples(path, _record(3, step_s=[0.5]))
    longer = path.read_bytes()
    for cut in range(len(whole) + 1, len(longer)):
        path.write_bytes(longer[:cut])
        notes: list[str] = []
        assert len(read_samples(path, note=notes.append)) == 3
        assert len(notes) == 1 and "cut short" in notes[0]
    append_samples(path, _record(7))
    assert [record["trial"] for record in read_samples(path)] == [0, 1, 2, 7]


def test_damage_is_named_and_not_taken_for_a_crash(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    for content, message in [
        (b"trial,step\n1,2\n", "is not gzip, or is damaged"),
        (gzip.compress(b"no json"), "is not JSON"),
        (gzip.compress(b"[" * 100_000), "is not JSON"),
        (gzip.compress(b'{"trial": 1}\n'), "lacks one of"),
        (gzip.compress(b"\xff\xfe"), "is not JSON"),
        (bytes(data), r"byte \d+"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            read_samples(path)
        assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="No such file"):
        read_samples(path.with_name("none.gz"))


def test_damaged_samples_are_read_or_refused_in_one_line(path: Path) -> None:
    choose, valid, refused = random.Random(11), path.read_bytes(), 0
    for _ in range(400):
        path.write_bytes(mutated(choose, valid) if choose.random() < 0.9 else choose.randbytes(40))
        try:
            read_samples(path, note=lambda _: None)
        except BenchError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 40
