"""`bench wrap` on a real CUDA device: a DDP program over links, emulated and simulated."""

from pathlib import Path

import pytest

from tests.gpu.test_run_gpu import ROOT, assert_usable, bench, json, sys

pytestmark = pytest.mark.timeout(300)
LINKS = ("h100-nvlink", "pcie4")


@pytest.mark.parametrize("mode", ["emulated", "simulated"])
def test_a_program_steps_slower_over_a_slower_link(mode: str, tmp_path: Path) -> None:
    program = str(ROOT / "tests" / "wrap" / "programs" / "on_device.py")
    flags = ("--devices", "8", "--link", ",".join(LINKS), "--mode", mode, "--profile", "smoke")
    command = ("--json", "--out", str(tmp_path), "--", sys.executable, program, "cuda:0", "ddp")
    done = bench("wrap", *flags, *command)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    rows = {row["link"]: row for row in json.loads(done.stdout)["rows"]}
    assert set(rows) == set(LINKS)
    for row in rows.values():
        assert_usable(row)
        assert row["mode"] == mode and row["data"] == "script" and row["step_clock"] == "event"
        assert 16e6 < row["comm_bytes"] < 18e6, "gradients of four million parameters"
        assert mode == "simulated" or abs(row["simulated_error_frac"]) < 0.05
    fast, slow = (rows[link]["step_mean_ms"] for link in LINKS)
    assert slow > fast
