"""Result files and their samples are read back, or refused in one line that names the place."""

import gzip
import json
import math
import random
import time
from pathlib import Path

import pytest
from result_rows import file_bytes, small_row, stored_row, write_file

from bench.core.errors import BenchError, DataError, IncompatibleError
from bench.results.beside_rows import append_samples, read_samples
from bench.results.reader import parse_rows, read_rows
from bench.results.schema import NAMES, SCHEMA_VERSION
from bench.results.store import samples_path

FIRST = {
    "window_s": 12.5,
    "started_utc": "2030-01-31T12:00:00Z",
    "params_json": "{}",
    "compile": True,
    "seed": 2**63 - 1,
}
"""The seed is a whole number that no float holds."""
RISE = ("drift_rise_frac", "drift_half_width_frac")


ROWS = [
    {"schema_version": "1.0", "run_id": "r1", **row}
    for row in (small_row(trial=0, **FIRST), small_row(trial=1, detail='said "no",\nand died'))
]
PIECES = [
    *(bytes([value]) for value in b"\n\r,\"';\t=\0\xff\x80 -+.e0"),
    *b'"" \r\n nan inf 1e999 \xef\xbb\xbf \xed\xa0\x80 2.0, 1.0,r1, NULL True'.split(b" "),
    b"9" * 400,
    b"[" * 3000,
]
"""What damage puts into a file."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_file(tmp_path / "run.csv", ROWS)


def _refusal(path: Path) -> str:
    with pytest.raises(BenchError) as caught:
        read_rows(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_rows_come_back_typed_with_every_column_from_spreadsheets_too(path: Path) -> None:
    read = read_rows(path)
    assert read == [{name: row.get(name) for name in NAMES} for row in ROWS]
    assert list(read[0]) == list(NAMES)
    assert type(read[0]["trial"]) is int
    data = path.read_bytes().replace(b"\nand", b" and").replace(b"\n", b"\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + data)
    assert read_rows(path) == [read[0], {**read[1], "detail": 'said "no", and died'}]
    assert read_rows(write_file(path, [])) == []


def test_another_major_schema_is_refused_and_columns_of_a_minor_one_ignored_or_blank(
    path: Path,
) -> None:
    text = path.read_text()
    for version in ("2.0", "10.3", "0.9"):
        path.write_text(text.replace("\n1.0,", f"\n{version},", 1))
        with pytest.raises(IncompatibleError, match=f"line 2: schema {version} cannot be read"):
            read_rows(path)
    lines = text.splitlines()[:2]
    path.write_text(f"{lines[0]},novelty\n{lines[1].replace('1.0', '1.7', 1)},42\n")
    assert read_rows(path) == [stored_row(trial=0, schema_version="1.7", **FIRST)]
    path.write_text(
        "schema_version,run_id,trial,status,workload,config_hash,device\n"
        "1.0,r1,0,OK,imaging-train,c0ffee,cpu\n"
    )
    assert read_rows(path) == [stored_row(schema_version="1.0", attempt=None)]
    results = Path(__file__).parents[2] / "results"
    rows = [row for found in results.glob("*/*.csv") for row in read_rows(found)]
    older = [row for row in rows if row["schema_version"] in ("1.0", "1.1", "1.2")]
    assert sum(row["drift_frac"] is not None for row in older) > 20
    assert {row[name] for row in older for name in RISE} == {None}


def test_a_cut_at_any_byte_leaves_the_rows_before_it(path: Path) -> None:
    data = path.read_bytes()
    header, first = data.index(b"\n") + 1, data.index(b"\n1.0,r1,1") + 1
    for cut in range(header, len(data)):
        path.write_bytes(data[:cut])
        assert len(read_rows(path, note=lambda _: None)) == (cut >= first)
    path.write_bytes(data + b'1.0,r1,2,1,OK,"\xc3')
    notes: list[str] = []
    assert [row["trial"] for row in read_rows(path, note=notes.append)] == [0, 1]
    assert notes == [f"{path}: line 5 was cut short and is ignored"]


DAMAGE = [
    ("12.5", "nan", "line 2, column window_s: 'nan': expected a finite number"),
    ("12.5", "-Infinity", "column window_s: '-Infinity': expected a finite number"),
    ("12.5", "NULL", "column window_s: 'NULL': expected a finite number"),
    (",r1,0,", ",r1,zero,", "line 2, column trial: 'zero': expected a whole number"),
    (",r1,0,", ",r1,0.5,", "column trial: '0.5': expected a whole number"),
    (",r1,0,", ",r1,True,", "column trial: 'True': expected a whole number"),
    (",r1,0,", ",r1,,", "column trial: '': must not be blank"),
    (",r1,0,", ",r1,0,0,", "line 2 has"),
    (",r1,0,", ",r10,", "cells where the header has"),
    (",OK,", ",GOOD,", "line 2, column status: 'GOOD': expected one of OK, WARN"),
    (",c0ffee,", ",,", "column config_hash: '': must not be blank"),
    ("T12:00:00Z", "", "column started_utc"),
    ("{}", "{", "column params_json"),
    ("1.0,r1,1", "one,r1,1", f"line 3: schema_version 'one' is not like {SCHEMA_VERSION}"),
    ('""no""', '"no"', "line 3 is not valid CSV"),
    ("run_id", "trail", "its first line has no column run_id"),
    ("detail", "trial", "line 1 has column 'trial' more than once"),
    ("schema_version,", "schema_version;", "no column schema_version"),
    ("c0ffee", "\0", "NUL"),
]
NO_RESULT_FILE = [
    (b"", "is empty"),
    (b"\n\n", "is no result file of bench"),
    (b"a,b\n1,2\n", "has no column schema_version, run_id"),
    (b"PK\x03\x04\x00\x00", "NUL"),
    (b"\x89PNG\r\n\x1a\n\xff\xff", "line 1 is not UTF-8"),
    (file_bytes(ROWS).replace(b"died", b"caf\xe9"), "line 4 is not UTF-8 text"),
    (b"no line end", "no complete header line"),
    ("schema_version\n".encode("utf-16"), "has no column run_id"),
    (b"[" * 200_000 + b"\n", "field larger than field limit"),
]


def test_damage_and_what_is_no_file_are_named_with_the_place(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    for old, new, message in DAMAGE:
        assert old in text
        path.write_text(text.replace(old, new, 1))
        assert message in _refusal(path), (old, new)
    for content, message in NO_RESULT_FILE:
        path.write_bytes(content)
        assert message in _refusal(path), content[:20]
    assert "cannot be read: No such file" in _refusal(tmp_path / "none.csv")
    assert "is a folder" in _refusal(tmp_path)
    assert "not an ordinary file" in _refusal(Path("/dev/null"))
    assert "cannot be read" in _refusal(tmp_path / ("x" * 5000))
    assert "cannot be read" in _refusal(Path("a\0b"))
    write_file(path, [*[stored_row(seed=4)] * 300, stored_row(seed=987654)])
    path.write_text(path.read_text().replace("987654", "7.5"))
    assert "line 302, column seed: '7.5'" in _refusal(path)


def mutated(choose: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(choose.randint(1, 4)):
        # Most damage goes to the rows: a damaged header hides whatever comes after.
        start = 0 if choose.random() < 0.2 else data.find(b"\n")
        at = choose.randint(min(start, len(changed)), len(changed))
        match choose.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([choose.randrange(256)])
            case 1:
                changed[at:at] = choose.choice(PIECES)
            case 2:
                del changed[at : at + choose.randint(1, 60)]
            case 3:
                del changed[at:]
            case 4:
                changed[at:at] = changed[at : at + choose.randint(1, 400)]
    return bytes(changed)


def _is_read(data: bytes) -> bool:
    try:
        parse_rows(data, path=Path("run.csv"), note=lambda _: None)
    except BenchError as error:
        message = str(error)
        assert message.startswith("run.csv: ") and "\n" not in message and len(message) < 500
        return False
    return True


def test_ten_thousand_damaged_files_are_read_or_refused_in_one_line() -> None:
    choose, valid, began_s = random.Random(2030), file_bytes(ROWS), time.perf_counter()
    header, num_read = valid[: valid.index(b"\n") + 1], 0
    for number in range(10_000):
        junk = choose.choice([b"", header]) + choose.randbytes(choose.randrange(300))
        num_read += _is_read(mutated(choose, valid) if number % 5 else junk)
    # Both ways are met: else the damage is too slight or too heavy to show anything.
    assert 500 < num_read < 8_000
    size = 3_000_000
    for content in (b'"' * size, b"\n" * size, b"," * size + b"\n", b'\n"' * (size // 2)):
        assert not _is_read(content)
    assert time.perf_counter() - began_s < 60.0, "junk is refused quickly"


STEPS = {"warmup_step_s": [0.3, 0.2], "step_s": [0.1 + 0.2] * 5}


def of_trial(trial: int, **samples: object) -> dict[str, object]:
    return {"config_hash": "c", "device": "cpu", "trial": trial, "attempt": 1, **samples}


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = samples_path(tmp_path / "run.csv")
    for trial in range(3):
        append_samples(path, of_trial(trial, **STEPS))
    return path


def test_every_step_comes_back_exactly_and_by_any_gzip_tool(samples: Path) -> None:
    assert samples.name == "run.samples.jsonl.gz"
    assert read_samples(samples) == [of_trial(trial, **STEPS) for trial in range(3)]
    lines = gzip.decompress(samples.read_bytes()).decode().splitlines()
    assert [json.loads(line)["trial"] for line in lines] == [0, 1, 2]
    # A trial that spans many pieces, and a loss that diverged, which is kept as text.
    steps = [number / 7 for number in range(60_000)]
    append_samples(samples, of_trial(3, step_s=steps))
    append_samples(samples, of_trial(4, loss=[1.5, math.nan, math.inf], note={"low": -math.inf}))
    *_, long, last = read_samples(samples)
    assert (long["trial"], long["step_s"]) == (3, steps)
    assert (last["loss"], last["note"]) == ([1.5, "nan", "inf"], {"low": "-inf"})
    with pytest.raises(ValueError, match="without device"):
        append_samples(samples, {**of_trial(5), "device": None})


def test_a_last_trial_cut_at_any_byte_is_ignored_and_then_removed(samples: Path) -> None:
    whole = samples.read_bytes()
    append_samples(samples, of_trial(3, step_s=[0.5]))
    longer = samples.read_bytes()
    for cut in range(len(whole) + 1, len(longer)):
        samples.write_bytes(longer[:cut])
        notes: list[str] = []
        assert len(read_samples(samples, note=notes.append)) == 3
        assert len(notes) == 1 and "cut short" in notes[0]
    append_samples(samples, of_trial(7))
    assert [record["trial"] for record in read_samples(samples)] == [0, 1, 2, 7]


def test_damaged_samples_are_read_or_refused_in_one_line_and_not_taken_for_a_crash(
    samples: Path,
) -> None:
    choose, valid, refused = random.Random(11), samples.read_bytes(), 0
    data = bytearray(valid)
    data[len(data) // 2] ^= 0xFF
    for content, message in [
        (b"trial,step\n1,2\n", "is not gzip, or is damaged"),
        (gzip.compress(b"no json"), "is not JSON"),
        (gzip.compress(b"[" * 100_000), "is not JSON"),
        (gzip.compress(b'{"trial": 1}\n'), "lacks one of"),
        (gzip.compress(b"\xff\xfe"), "is not JSON"),
        (bytes(data), r"byte \d+"),
    ]:
        samples.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            read_samples(samples)
        assert str(samples) in str(caught.value)
    with pytest.raises(DataError, match="No such file"):
        read_samples(samples.with_name("none.gz"))
    for number in range(400):
        samples.write_bytes(mutated(choose, valid) if number % 10 else choose.randbytes(40))
        try:
            read_samples(samples, note=lambda _: None)
        except BenchError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 40
