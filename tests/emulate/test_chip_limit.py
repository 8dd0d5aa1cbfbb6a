"""Cutting the CPU down: in a process of its own, because a limit cannot be taken back."""

import json
import subprocess
import sys

import pytest
import torch

from bench.core.errors import UsageError
from bench.emulate.limited_device import apply_chip_limit
from bench.hardware.chip_limit import ChipLimit

CPU = torch.device("cpu")
LIMITED = """
import json, os, sys, torch
from bench.emulate.limited_device import apply_chip_limit
from bench.hardware.chip_limit import parse_chip_limit
granted = apply_chip_limit(parse_chip_limit(sys.argv[1]), torch.device("cpu"))
try:
    torch.ones(int(sys.argv[2]), dtype=torch.uint8)
    fits = True
except RuntimeError:
    fits = False
print(json.dumps({"cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
                  "fits": fits, "label": granted.label}))
"""


def limited(text: str, *, allocate_bytes: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, text, str(allocate_bytes)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    document: dict[str, object] = json.loads(done.stdout)
    return document


def test_a_limited_process_keeps_its_cores_and_its_memory() -> None:
    small = limited("cores=1,memory=2GB", allocate_bytes=10**8)
    assert small["cores"] == small["threads"] == 1
    assert small["fits"] is True
    assert small["label"] == "this device with 1 cores, 2.00 GB of memory"
    assert limited("memory=2GB", allocate_bytes=3 * 10**9)["fits"] is False


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(UsageError, match="this process may use"):
        apply_chip_limit(ChipLimit(cores=100_000), CPU)
    with pytest.raises(UsageError, match="there are"):
        apply_chip_limit(ChipLimit(memory_bytes=10**18), CPU)
    with pytest.raises(UsageError, match="CUDA"):
        apply_chip_limit(ChipLimit(sms=8), CPU)
