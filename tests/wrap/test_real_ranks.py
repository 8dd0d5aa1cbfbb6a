"""Real ranks of a program, by torchrun and spawned by itself: rank 0 is measured, all end well."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(__file__).with_name("programs") / "ddp_ranks.py")
TORCHRUN = ["torchrun", "--nproc-per-node", "2", PROGRAM]
SPAWNED = ["python", PROGRAM, "2"]


def wrapped(*flags, command, out):
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    bench = [sys.executable, "-m", "bench", "wrap", "--profile", "smoke", "--json"]
    return subprocess.run(
        [*bench, "--out", str(out), *flags, "--", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": scripts},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", [TORCHRUN, SPAWNED], ids=["torchrun", "spawned"])
def test_rank_0_of_real_ranks_is_measured_and_all_leave_well(tmp_path, command):
    done = wrapped(command=command, out=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["mode"], row["device_count"], row["parallel"]) == ("real", 2, "ddp")
    assert row["link"] is None and row["layout"] == "dp2" and row["threads"] == 1
    assert row["items"] == row["steps"] * 8 * 2
    assert row["rss_peak_bytes"] > 0 and row["flops_per_item"] == 2 * 5 * 256**2
    # Twice, in the look and in the trial: in a barrier that a rank did not come to, none would.
    for rank in range(2):
        assert done.stderr.count(f"rank {rank} leaves well") == 2
    assert "signal" not in done.stderr and "is through" not in done.stderr
