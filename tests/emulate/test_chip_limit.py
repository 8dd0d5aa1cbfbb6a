"""`--chip-limit` as it is written, and a CPU cut down, in a process of its own: it is for good."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.emulate.limited_device import apply_chip_limit
from bench.hardware.chip_limit import ChipLimit, check_device, parse_chip_limit

CPU = torch.device("cpu")
LIMITED = """
import json, os, torch
from bench.emulate.limited_device import apply_chip_limit
from bench.hardware.chip_limit import parse_chip_limit
granted = apply_chip_limit(parse_chip_limit("cores=1,memory=2GB"), torch.device("cpu"))
torch.ones(10**8, dtype=torch.uint8)
try:
    torch.ones(3 * 10**9, dtype=torch.uint8)
except RuntimeError:
    print(json.dumps([len(os.sched_getaffinity(0)), torch.get_num_threads(), granted.label]))
"""


def test_a_limited_process_keeps_its_cores_and_its_memory() -> None:
    command = [sys.executable, "-c", LIMITED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    label = "this device with 1 cores, 2.00 GB of memory"
    assert json.loads(done.stdout) == [1, 1, label], "3 GB are refused"


def test_more_than_there_is_and_what_a_type_of_device_has_not_is_refused() -> None:
    with pytest.raises(UsageError, match="this process may use"):
        apply_chip_limit(ChipLimit(cores=100_000), CPU)
    with pytest.raises(UsageError, match="there are"):
        apply_chip_limit(ChipLimit(memory_bytes=10**18), CPU)
    with pytest.raises(UsageError, match="CUDA"):
        apply_chip_limit(ChipLimit(sms=8), CPU)
    check_device(ChipLimit(sms=8), device_type="cuda")
    check_device(ChipLimit(cores=1, memory_bytes=10**9), device_type="cpu")
    for limit, device_type in (
        (ChipLimit(sms=8), "cpu"),
        (ChipLimit(cores=1), "cuda"),
        (ChipLimit(memory_bytes=10**9), "npu"),
    ):
        with pytest.raises(UsageError, match="--chip-limit"):
            check_device(limit, device_type=device_type)


def test_units_and_memory_are_read_and_the_label_never_names_another_chip() -> None:
    assert parse_chip_limit("sms=78,memory=24GB") == ChipLimit(sms=78, memory_bytes=24 * 10**9)
    assert parse_chip_limit(" cores = 2 ") == ChipLimit(cores=2)
    limit = ChipLimit(sms=78, memory_bytes=24 * 10**9)
    assert limit.label() == "this device with 78 SMs, 24.0 GB of memory"
    assert limit.label(sms_granted=72).startswith("this device with 72 SMs (78 asked)")


@given(sms=st.none() | st.integers(1, 999), memory_bytes=st.none() | st.integers(1, 10**13))
def test_the_name_of_a_limit_reads_back(sms: int | None, memory_bytes: int | None) -> None:
    limit = ChipLimit(sms=sms, memory_bytes=memory_bytes)
    if limit.name:
        assert parse_chip_limit(limit.name) == limit


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "key=value"),
        ("78", "key=value"),
        ("sms=", "key=value"),
        ("sm=78", "did you mean 'sms'"),
        ("sms=0", "not a whole number over 0"),
        ("sms=7.5", "not a whole number over 0"),
        ("sms=-1", "not a whole number over 0"),
        ("sms=" + "9" * 5000, "not a whole number over 0"),
        ("memory=24", "needs a number with a unit"),
        ("memory=0GB", "memory must be over 0"),
        ("sms=1,sms=2", "twice"),
        ("sms=1,cores=2", "give one of them"),
    ],
)
def test_a_mistake_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        parse_chip_limit(text)
    assert "\n" not in str(raised.value)
