"""`bench run` on real CUDA devices: every phase in every dtype, figures that must agree, ranks.

A figure is compared with another way of knowing it: events with the host's clock, an energy counter
with sampled power, a peak with an estimate. Compiling takes minutes; `-k eager` leaves it out.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.devices.torch import detect
from bench.devices.torch.probe import probe_dtypes

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
PHASES = {"imaging-train", "imaging-infer", "llm-train", "llm-prefill", "llm-decode"}
HARMLESS = {"smoke", "input_bound", "host_bound", "foreign_gpu", "foreign_cpu", "drift",
            "not_steady", "noisy", "steal"}  # fmt: skip

Row = dict[str, Any]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
    return done


def run(*flags: str, out: Path) -> list[Row]:
    done = bench("run", "--device", "cuda", "--json", *flags, "--out", str(out))
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    rows: list[Row] = json.loads(done.stdout)["rows"]
    return rows


def assert_usable(row: Row) -> None:
    assert row["status"] in ("OK", "WARN"), row
    assert set(filter(None, (row.get("reasons") or "").split(";"))) <= HARMLESS, row


@pytest.fixture(scope="module")
def states() -> dict[str, str]:
    return dict(probe_dtypes("cuda:0"))


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16", "fp16"])
def test_every_phase_runs_at_tiny(
    dtype: str, mode: str, states: dict[str, str], tmp_path: Path
) -> None:
    if states[dtype] != "ok":
        pytest.skip(f"{dtype} {states[dtype]} on this device")
    flags = ["--size", "tiny", "--profile", "smoke", "--dtype", dtype]
    rows = run("--workload", "all", *flags, *["--compile"] * (mode == "compiled"), out=tmp_path)
    assert {row["workload"] for row in rows} == PHASES
    for row in rows:
        assert_usable(row)
        assert row["step_clock"] == "event"
        assert row["check_error_frac"] <= row["check_tolerance_frac"]
        assert row["mem_init_peak_bytes"] > 0
        assert 0 < row["mem_alloc_peak_bytes"] <= row["mem_reserved_peak_bytes"]
        if mode == "compiled":
            assert row["compile_s"] > 0
    if (dtype, mode) == ("bf16", "eager"):
        rows = run("--workload", "imaging", *flags, "--channels-last", out=tmp_path)
        assert {row["channels_last"] for row in rows} == {True}
        for row in rows:
            assert_usable(row)


@pytest.fixture(scope="module")
def measured(states: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """Three phases at base, long enough to be a measurement (about three minutes)."""
    if states["bf16"] != "ok":
        pytest.skip(f"bf16 {states['bf16']} on this device")
    out = tmp_path_factory.mktemp("measured")
    flags = ("--size", "base", "--dtype", "bf16", "--profile", "quick")
    rows = run("--workload", "imaging-train,llm-train,llm-prefill", *flags, out=out)
    for row in rows:
        assert_usable(row)
    return {row["workload"]: row for row in rows}


def test_figures_agree_with_another_way_of_knowing_them(measured: dict[str, Row]) -> None:
    """Against the datasheet: `scripts.gpu_acceptance`."""
    has_power = "power" in detect.find("cuda").telemetry  # not a MIG slice, nor an old driver
    for row in measured.values():
        assert row["window_s"] >= 9.9
        by_events_s = row["step_mean_ms"] * row["steps"] / 1e3
        assert by_events_s == pytest.approx(row["window_s"], rel=0.02)
        assert row["throughput_per_s"] == pytest.approx(row["items"] / row["window_s"], rel=1e-9)
        assert 0.4 < row["mem_estimate_bytes"] / row["mem_alloc_peak_bytes"] < 2.5
        if row.get("mem_device_peak_bytes") is not None:
            # The context and the libraries lie beside torch's allocator.
            assert row["mem_device_peak_bytes"] >= 0.95 * row["mem_reserved_peak_bytes"]
        assert row["roof_frac"] < 1.05
        if has_power:
            assert row["energy_source"] in ("counter", "integrated")
            assert row["energy_j"] == pytest.approx(row["energy_integrated_j"], rel=0.15)
            assert row["energy_j"] == pytest.approx(row["power_mean_w"] * row["window_s"], rel=0.02)
            assert row["energy_per_item_j"] == pytest.approx(row["energy_j"] / row["items"])
            assert 1 < row["idle_power_w"] < row["power_mean_w"]
            assert row["power_mean_w"] <= 1.1 * (row.get("power_limit_w") or 1e4)


TWO_RANKS = ("-w", "llm-train", "--size", "tiny", "--devices", "2", "--profile", "smoke")


@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="needs exactly one CUDA device")
def test_one_device_has_no_link_and_no_second_rank(tmp_path: Path) -> None:
    done = bench("measure-link", "--device", "cuda")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "a link needs two devices and cuda:0 is the only one here" in line
    done = bench("run", *TWO_RANKS, "--device", "cuda", "--json", "--out", str(tmp_path))
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["status"], row["reasons"]) == ("FAILED", "error")
    assert "rank 1 needs cuda:1, but this machine has 1 of them" in row["detail"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_train_over_nccl_and_their_link_gains_with_size(tmp_path: Path) -> None:
    for strategy in ("ddp", "fsdp", "tp"):
        (row,) = run(*TWO_RANKS, "--parallel", strategy, out=tmp_path)
        assert (row["device_count"], row["mode"], row["parallel"]) == (2, "real", strategy)
        assert row["step_clock"] == "event"
    out = str(tmp_path / "link.yaml")
    done = bench("measure-link", "--device", "cuda", "--devices", "2", "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["backend"] == "nccl" and document["missing"] == {}
    rates = [one["bus_bytes_per_s"] for one in document["points"] if one["op"] == "all_reduce"]
    assert rates[-1] > 10 * rates[0]
