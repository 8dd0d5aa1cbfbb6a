"""Trials on the real CPU: what is measured, and how a torch workload's failures are reported."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench_process import NET, WORKLOADS, bench_run, environment, only_file, rows_in

from bench.cli import main
from bench.results.beside_rows import profiles_path, read_profiles
from bench.results.schema import Row


def cpu_rows(
    *arguments: str, out: Path, workload: str = f"{NET}:train", code: int = 4
) -> list[Row]:
    found, _, stderr = bench_run(
        *("-w", workload, "--device", "cpu", "--threads", "1", "--profile", "smoke"),
        *arguments,
        out=out,
    )
    assert found == code, stderr
    return rows_in(out)


def by_fault(rows: list[Row]) -> dict[str, Row]:
    return {json.loads(str(row["params_json"]))["fault"]: row for row in rows}


def test_both_phases_of_a_healthy_net_fill_their_rows(tmp_path: Path) -> None:
    rows = cpu_rows("--seed", "3", workload=NET, out=tmp_path, code=0)
    infer, train = sorted(rows, key=lambda row: str(row["workload"]))
    for row in rows:
        # A loader that a busy machine holds up is no fault of the net.
        assert set(str(row["reasons"]).split(";")) <= {"smoke", "input_bound"}
        assert row["status"] == "WARN"
        assert (row["mode"], row["device_type"], row["step_clock"]) == ("real", "cpu", "host")
        assert (row["batch"], row["items_unit"], row["threads"]) == (4, "sample", 1)
        assert row["num_parameters"] == 272
        assert int(row["items"] or 0) == 4 * int(row["steps"] or 0) > 0
        assert float(row["check_error_frac"] or 0.0) <= float(row["check_tolerance_frac"] or 0)
        for column in ("import_s", "build_s", "transfer_s", "first_step_s", "rss_peak_bytes"):
            assert float(row[column] or 0) > 0, column
    assert train["flops_per_item"] == 1024.0
    assert infer["flops_per_item"] == 512.0
    assert float(infer["lat_p50_ms"] or 0) >= 20
    assert infer["data_wait_frac"] is None, "resident batches are not waited for"
    assert infer["loss_last"] is None
    assert float(train["loss_first"] or 0) > 0 and float(train["loss_last"] or 0) > 0
    assert train["lat_n"] is None
    assert not profiles_path(only_file(tmp_path)).exists(), "a smoke run ends without"


def test_operators_are_profiled_on_request_and_only_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu_rows(out=tmp_path, code=0)
    path = only_file(tmp_path)
    words = ["project", str(path), "--to", "h20", "--profile-operators"]
    # A smoke run measures no roof, so there is a profile and nothing to project from.
    assert main(words) == 5
    reported = capsys.readouterr().err
    assert "profiling operators" in reported and "roof was not measured" in reported
    (one,) = read_profiles(path).values()
    assert sum(operators.time_s or 0.0 for operators in one.operators) > 0.0
    assert any(operators.is_matrix and operators.flops > 0.0 for operators in one.operators)
    before = profiles_path(path).read_bytes()
    assert main(words) == 5
    assert "profiling operators" not in capsys.readouterr().err
    assert profiles_path(path).read_bytes() == before


def test_faults_of_training_and_of_inference_are_told_apart(tmp_path: Path) -> None:
    rows = by_fault(cpu_rows("--set", "fault=nan,inf,memory,unsupported", out=tmp_path / "train"))
    for fault in ("nan", "inf"):
        row = rows[fault]
        assert row["status"] == "INVALID"
        assert {"nonfinite", "smoke"} <= set(str(row["reasons"]).split(";"))
        assert row["detail"] == f"loss went from {fault} to {fault}"
        assert row["loss_last"] is None, "what is not finite has no cell"
        assert float(row["throughput_per_s"] or 0) > 0, "the figures are kept"
    memory, unsupported = rows["memory"], rows["unsupported"]
    assert (memory["status"], memory["reasons"]) == ("FAILED", "out_of_memory")
    assert "allocate" in str(memory["detail"])
    assert (unsupported["status"], unsupported["reasons"]) == ("FAILED", "unsupported_op")
    assert "not implemented for 'Long'" in str(unsupported["detail"])
    assert all(row["attempt"] == 1 for row in rows.values()), "a second attempt could not differ"
    faults = ("--set", "fault=nan_output,check")
    rows = by_fault(cpu_rows(*faults, workload=f"{NET}:infer", out=tmp_path / "infer"))
    assert {row["status"] for row in rows.values()} == {"INVALID"}
    assert rows["nan_output"]["reasons"] == "nonfinite;smoke"
    assert rows["nan_output"]["detail"] == "the output has values that are not finite"
    assert rows["check"]["reasons"] == "wrong_output;smoke"
    assert rows["check"]["detail"] == "no row may look like this in finance"


def test_output_that_differs_from_the_reference_makes_the_row_invalid(tmp_path: Path) -> None:
    wrong = str(WORKLOADS / "wrong_net.py:infer")
    rows = cpu_rows("--dtype", "fp32,bf16", workload=wrong, out=tmp_path)
    halved, right = sorted(rows, key=lambda row: str(row["dtype"]))
    assert (right["status"], right["reasons"]) == ("WARN", "smoke")
    assert (halved["status"], halved["reasons"]) == ("INVALID", "wrong_output;smoke")
    assert float(halved["check_error_frac"] or 0) == pytest.approx(0.5, abs=0.05)
    assert halved["detail"] == "output at tiny is 0.5 from the CPU's fp32 result, tolerance 0.06"


def test_slow_loader_is_told_from_a_slow_device_and_a_process_takes_the_wait_away(
    tmp_path: Path,
) -> None:
    def loaded(name: str, delay_s: float, *flags: str) -> Any:
        (row,) = cpu_rows("--set", f"delay_s={delay_s}", *flags, out=tmp_path / name, code=0)
        return row

    row = loaded("generated", 0.01)
    assert set(row["reasons"].split(";")) == {"smoke", "input_bound"}
    # Four samples of 10 ms each, before a step of 20 ms.
    assert row["data_wait_frac"] == pytest.approx(2 / 3, abs=0.15)
    assert row["step_median_ms"] > 60
    row = loaded("resident", 0.01, "--data", "resident")
    assert row["reasons"] == "smoke"
    assert (row["data"], row["data_wait_frac"]) == ("resident", None)
    assert 20 <= row["step_median_ms"] < 60
    row = loaded("process", 0.004, "--workers", "1")
    assert (row["workers"], row["status"]) == (1, "WARN")
    # Loading takes 16 of 36 ms where it is not done meanwhile, as 20 ms are computed.
    assert 0 < row["data_wait_frac"] < 0.3


def test_folder_of_the_user_cannot_stand_in_for_our_modules(tmp_path: Path) -> None:
    for name in ("workloads", "bench"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "copyreg.py").write_text("raise ImportError('the wrong copyreg')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bench", "run", "-w", "sleep-infer", "--profile", "smoke"]
        + ["--device", "cpu", "--size", "tiny", "--quiet", "--out", "results"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert rows_in(tmp_path / "results")[0]["status"] == "WARN"


def test_tokens_of_several_devices_are_counted_once(tmp_path: Path) -> None:
    laid_out = ("--devices", "2", "--parallel", "fsdp", "--link", "bw=10GB/s,latency=2ms")
    (row,) = cpu_rows("--size", "tiny", *laid_out, workload="llm-decode", out=tmp_path, code=0)
    parameters = json.loads(str(row["params_json"]))
    assert row["device_count"] == 2
    tokens = 2 * parameters["batch"] * parameters["new_tokens"] * int(row["steps"] or 0)
    assert row["items"] == tokens
    assert row["decode_tok_per_s"] == pytest.approx(tokens / float(row["window_s"] or 0))
    # Each sequence is still made one token after the other.
    step_ms = float(row["step_median_ms"] or 0)
    assert row["tpot_ms"] == pytest.approx(step_ms / parameters["new_tokens"])
