"""Real ranks on CUDA devices over nccl, and what is said where there is one device only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is available"),
    pytest.mark.timeout(900),
]
ROOT = Path(__file__).parents[2]
needs_two = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="needs two CUDA devices in one machine"
)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="needs exactly one CUDA device")
def test_link_of_one_device_is_refused_in_one_line():
    done = bench("measure-link", "--device", "cuda")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "a link needs two devices and cuda:0 is the only one here" in line


@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="needs exactly one CUDA device")
def test_more_ranks_than_devices_fail_with_the_reason(tmp_path: Path):
    done = bench(
        *("run", "-w", "llm-train", "--size", "tiny", "--device", "cuda", "--devices", "2"),
        *("--profile", "smoke", "--json", "--out", str(tmp_path)),
    )
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["status"], row["reasons"]) == ("FAILED", "error")
    assert "rank 1 needs cuda:1, but this machine has 1 of them" in row["detail"]


@needs_two
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "tp"])
def test_two_devices_train_over_nccl(strategy: str, tmp_path: Path):
    done = bench(
        *("run", "-w", "llm-train", "--size", "tiny", "--device", "cuda", "--devices", "2"),
        *("--parallel", strategy, "--profile", "smoke", "--json", "--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["device_count"], row["mode"], row["parallel"]) == (2, "real", strategy)
    assert row["step_clock"] == "event"


@needs_two
def test_link_between_two_devices_reaches_more_at_larger_sizes(tmp_path: Path):
    out = tmp_path / "link.yaml"
    done = bench("measure-link", "--device", "cuda", "--devices", "2", "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["backend"] == "nccl" and document["missing"] == {}
    rates = [one["bus_bytes_per_s"] for one in document["points"] if one["op"] == "all_reduce"]
    assert rates[-1] > 10 * rates[0]
