"""Ten thousand damaged files: each is read, or refused in one line."""

import random
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from result_rows import file_bytes, small_row

from bench.core.errors import BenchError
from bench.results.reader import parse_rows
from bench.results.samples import append_samples, read_samples

PATH = Path("run.csv")
NUM_FILES = 10_000
LIMIT_S = 40.0
PIECES = [
    *(bytes([value]) for value in b"\n\r,\"';\t=\0\xff\x80 -+.e0"),
    *b'"" \r\n nan inf 1e999 \xef\xbb\xbf \xed\xa0\x80 2.0, 1.0,r1, NULL True'.split(b" "),
    b"9" * 400,
    b"[" * 3000,
]
VALID = file_bytes(
    [
        {
            "schema_version": "1.0",
            "run_id": "r1",
            **small_row(
                trial=trial,
                detail='a "text",\nwith all',
                params_json='{"batch":2}',
                window_s=12.5,
                compile=True,
                started_utc="2030-01-31T12:00:00Z",
            ),
        }
        for trial in range(2)
    ]
)


def _check(data: bytes) -> bool:
    """Read it; True when it could be."""
    try:
        parse_rows(data, path=PATH, note=lambda _: None)
    except BenchError as error:
        message = str(error)
        assert message.startswith("run.csv: ") and "\n" not in message and len(message) < 500
        return False
    return True


def _mutated(choose: random.Random, data: bytes) -> bytes:
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


def test_ten_thousand_damaged_files_are_read_or_refused_in_one_line() -> None:
    choose = random.Random(2030)
    began_s = time.perf_counter()
    num_read = 0
    for number in range(NUM_FILES):
        if number % 5 == 0:
            data = choose.randbytes(choose.randrange(300))
        else:
            data = _mutated(choose, VALID)
        num_read += _check(data)
    assert time.perf_counter() - began_s < LIMIT_S
    # Both ways are met: else the damage is too slight or too heavy to show anything.
    assert NUM_FILES * 0.05 < num_read < NUM_FILES * 0.8


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_any_bytes_after_a_valid_header_are_read_or_refused(tail: bytes) -> None:
    _check(VALID[: VALID.index(b"\n") + 1] + tail)


def test_damaged_samples_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    choose = random.Random(11)
    path = tmp_path / "run.samples.jsonl.gz"
    for trial in range(3):
        record = {"config_hash": "c", "device": "cpu", "trial": trial, "attempt": 1}
        append_samples(path, {**record, "step_s": [0.1] * 20})
    valid = path.read_bytes()
    refused = 0
    for _ in range(400):
        path.write_bytes(_mutated(choose, valid) if choose.random() < 0.9 else choose.randbytes(40))
        try:
            read_samples(path, note=lambda _: None)
        except BenchError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 40


def test_a_large_file_of_junk_is_refused_quickly() -> None:
    began_s, size = time.perf_counter(), 3_000_000
    for content in (b'"' * size, b"\n" * size, b"," * size + b"\n", b'\n"' * (size // 2)):
        assert not _check(content)
    assert time.perf_counter() - began_s < 20.0
