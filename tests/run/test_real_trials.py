"""Trials on the CPU and the fake device: what is measured, and what is said of each failure."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_process import (
    FAULTY,
    NET,
    WORKLOADS,
    bench_run,
    environment,
    fake_run,
    only_file,
    processes_with,
    rows_in,
)

from bench.analysis.scaling import step_parts_ms
from bench.cli import main
from bench.measure.asking import failure_of
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


def test_both_phases_of_a_healthy_net_fill_their_rows(tmp_path: Path) -> None:
    rows = cpu_rows("--seed", "3", workload=NET, out=tmp_path, code=0)
    infer, train = sorted(rows, key=lambda row: str(row["workload"]))
    for row in rows:
        # A loader that a busy machine holds up is no fault of the net; inference has none.
        assert set(str(row["reasons"]).split(";")) - {"input_bound"} == {"smoke"}
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
    assert infer["reasons"] == "smoke"
    assert 20 <= float(infer["lat_p50_ms"] or 0) < 60
    assert infer["data_wait_frac"] is None, "resident batches are not waited for"
    assert infer["loss_last"] is None
    assert float(train["loss_first"] or 0) > 0 and float(train["loss_last"] or 0) > 0
    assert train["lat_n"] is None
    assert not profiles_path(only_file(tmp_path)).exists(), "a smoke run ends without"


def test_faults_of_training_and_of_inference_are_told_apart(tmp_path: Path) -> None:
    (row,) = cpu_rows("--set", "fault=nan", out=tmp_path / "train")
    assert {"nonfinite", "smoke"} <= set(str(row["reasons"]).split(";"))
    assert (row["status"], row["detail"]) == ("INVALID", "loss went from nan to nan")
    assert row["loss_last"] is None, "what is not finite has no cell"
    assert float(row["throughput_per_s"] or 0) > 0, "the figures are kept"
    assert row["attempt"] == 1, "a second attempt could not differ"
    faults = ("--set", "fault=nan_output,check")
    rows = cpu_rows(*faults, workload=f"{NET}:infer", out=tmp_path / "infer")
    assert {row["status"] for row in rows} == {"INVALID"}
    assert {f"{row['reasons']}: {row['detail']}" for row in rows} == {
        "nonfinite;smoke: the output has values that are not finite",
        "wrong_output;smoke: no row may look like this in finance",
    }


def test_output_that_differs_from_the_reference_makes_the_row_invalid(tmp_path: Path) -> None:
    wrong = str(WORKLOADS / "wrong_net.py:infer")
    (row,) = cpu_rows("--dtype", "bf16", workload=wrong, out=tmp_path)
    assert (row["status"], row["reasons"]) == ("INVALID", "wrong_output;smoke")
    assert float(row["check_error_frac"] or 0) == pytest.approx(0.5, abs=0.05)
    assert row["detail"] == "output at tiny is 0.5 from the CPU's fp32 result, tolerance 0.06"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: torch.empty(10**15), "out_of_memory"),
        # What torch raises where a backend has no kernel for a type.
        (lambda: torch.ones(2, dtype=torch.long).softmax(0), "unsupported_op"),
    ],
)
def test_what_torch_raises_on_a_cpu_has_its_reason(call: Callable[[], Any], code: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        call()
    assert failure_of(caught.value, device="cpu").code == code


def test_a_slow_loader_is_told_from_a_slow_device_and_waited_for_in_a_simulated_step_too(
    tmp_path: Path,
) -> None:
    rows = cpu_rows(
        *("--set", "delay_s=0.01", "--workers", "0", "--devices", "1,8", "--parallel", "ddp,fsdp"),
        *("--link", "h100-nvlink,h100-nvlink*4/10gbe", "--mode", "simulated"),
        out=tmp_path,
        code=0,
    )
    (alone,) = (row for row in rows if row["device_count"] == 1)
    assert len(rows) == 5
    for strategy in ("ddp", "fsdp"):  # one trial for both links
        ours = [row for row in rows if row["parallel"] == strategy]
        assert len(ours) == 2 and len({row["compute_step_ms"] for row in ours}) == 1
        fast_ms, slow_ms = sorted(float(str(row["comm_total_ms"])) for row in ours)
        assert slow_ms > 2 * fast_ms, "the ranks lie on each link's own nodes"
    assert set(str(alone["reasons"]).split(";")) == {"smoke", "input_bound"}
    for row in rows:
        # Four samples of 10 ms each, before a step of 20 ms.
        assert float(row["step_median_ms"] or 0) > 60
        assert float(row["data_wait_frac"] or 0) == pytest.approx(2 / 3, abs=0.1)
        assert "input_bound" in str(row["reasons"]).split(";")
        each = float(row["throughput_per_s"] or 0) / int(row["device_count"] or 1)
        assert each < 1.1 * float(alone["throughput_per_s"] or 0), "none gains by company"
        waited_s = float(row["data_wait_s"] or 0)
        assert waited_s == pytest.approx(0.04 * int(row["steps"] or 0), rel=0.3)
        if row is not alone:
            assert float(row["compute_step_ms"] or 0) > 60, "a link takes no wait away"
            parts = step_parts_ms(row)
            assert parts["loader"] > parts["compute"] > 10, "40 ms and 20 ms"


def test_resident_data_and_a_process_of_the_loader_take_the_wait_away_and_a_profile_is_made_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "resident"
    (row,) = cpu_rows("--set", "delay_s=0.01", "--data", "resident", out=out, code=0)
    path = only_file(out)
    assert (row["reasons"], row["data"], row["data_wait_frac"]) == ("smoke", "resident", None)
    assert 20 <= float(row["step_median_ms"] or 0) < 60
    # A smoke run measures no roof, so there is a profile and nothing to project from.
    words = ["project", str(path), "--to", "h20", "--profile-operators"]
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

    delayed = ("--set", "delay_s=0.004", "--workers", "1")
    (row,) = cpu_rows(*delayed, out=tmp_path / "process", code=0)
    assert (row["workers"], row["status"]) == (1, "WARN")
    # Loading takes 16 of 36 ms where it is not done meanwhile, as 20 ms are computed.
    assert 0 < float(row["data_wait_frac"] or 0) < 0.3


def test_folder_of_the_user_cannot_stand_in_for_our_modules(tmp_path: Path) -> None:
    for name in ("workloads", "bench"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "copyreg.py").write_text("raise ImportError('the wrong copyreg')")
    words = ["-w", "sleep-infer", "--profile", "smoke", "--device", "cpu", "--size", "tiny"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bench", "run", *words, "--quiet", "--out", "results"],
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


RAISED = {
    "memory": ("out_of_memory", "MemoryError: no room for the batch"),
    "unsupported": ("unsupported_op", "NotImplementedError: operator frobnicate is missing"),
    "error": ("error", "KeyError: 'first line\\nsecond line'"),
}
DEATHS = {
    "kill": "signal SIGKILL (killed from outside; often the system was out of memory)",
    "segfault": "signal SIGSEGV",
    "exit": "exit code 0",
    "interrupt": "SIGINT",  # raised inside a trial it is not the user's
}


def test_what_a_step_raises_is_a_reason_and_a_dead_process_a_crash_tried_twice(
    tmp_path: Path,
) -> None:
    faults = f"fault={','.join((*RAISED, *DEATHS))}"
    code, _, stderr = fake_run(
        *("-w", FAULTY, "--profile", "smoke", "--trials", "2", "--set", faults, "-q"), out=tmp_path
    )
    rows = rows_in(tmp_path)
    assert code == 4
    assert len(stderr.splitlines()) - 1 == len(rows) == len(RAISED) + 2 * len(DEATHS)
    assert stderr.count(".failures.txt") == 1
    assert {row["status"] for row in rows} == {"FAILED"}
    found = [
        (json.loads(str(row["params_json"]))["fault"], row["attempt"], row["reasons"])
        for row in rows
    ]
    once = [(fault, 1, reason) for fault, (reason, _) in RAISED.items()]
    assert sorted(found) == sorted(
        once + [(fault, attempt, "crashed") for fault in DEATHS for attempt in (1, 2)]
    )
    for (fault, _, _), row in zip(found, rows, strict=True):
        detail = str(row["detail"])
        if fault in RAISED:
            assert detail == RAISED[fault][1]
        else:
            assert detail.startswith("the trial's process died in stage warmup: ")
            assert DEATHS[fault] in detail
            assert detail.endswith("last line: the last words") == (fault == "kill")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hanging_trial_is_ended_with_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPBENCH_TEST_FOLDER", str(tmp_path))
    started_s = time.monotonic()
    code, _, _ = fake_run(
        *("-w", FAULTY, "--set", "fault=hang_stubbornly", "--set", f"once={tmp_path / 'mark'}"),
        *("--profile", "smoke", "--timeout", "2s"),
        out=tmp_path,
    )
    assert code == 0, "the second attempt does not hang"
    assert time.monotonic() - started_s < 20
    first, second = rows_in(tmp_path)
    assert (first["status"], first["reasons"], first["attempt"]) == ("FAILED", "timeout", 1)
    assert first["detail"] == "not finished after 2 s, in stage warmup"
    assert (second["status"], second["attempt"], second["trial"]) == ("WARN", 2, 0)
    assert processes_with(str(tmp_path)) == []


def test_other_configurations_go_on_when_one_fails(tmp_path: Path) -> None:
    faults = ("--set", "fault=memory,none", "--trials", "2")
    code, stdout, _ = fake_run("-w", FAULTY, *faults, out=tmp_path)
    assert code == 4, "one configuration has no usable row"
    assert sorted(str(row["status"]) for row in rows_in(tmp_path)) == ["FAILED", "OK", "OK"]
    assert "out_of_memory: 1 of 3 trials, faulty-infer: device or host memory" in stdout


def test_oom_shrink_halves_the_batch_until_it_fits_and_says_so(tmp_path: Path) -> None:
    """Memory is never enough for a batch over some size."""
    for number, (flags, code, expected) in enumerate(
        [
            ("8 --oom-shrink --set above_batch=3", 0, "8 FAILED, 4 FAILED, 2 WARN"),
            ("2 --oom-shrink", 4, "2 FAILED, 1 FAILED"),  # it gives up at batch one
            ("2", 4, "2 FAILED"),
            ("4,2 --oom-shrink --set above_batch=2", 0, "4 FAILED, 2 OK"),  # none twice
        ]
    ):
        words = ("-w", FAULTY, "--set", "fault=memory", "--trials", "1", "--batch", *flags.split())
        found, _, stderr = fake_run(*words, out=tmp_path / str(number))
        rows = sorted(rows_in(tmp_path / str(number)), key=lambda row: -int(row["batch"] or 0))
        assert ", ".join(f"{row['batch']} {row['status']}" for row in rows) == expected, flags
        assert found == code, flags
        for row in rows:
            is_shrunk = f"out of memory; trying batch {row['batch']}" in stderr
            assert ("oom_shrunk" in str(row["reasons"])) == is_shrunk, flags
            assert ("out_of_memory" in str(row["reasons"])) == (row["status"] == "FAILED"), flags
            assert f'"batch":{row["batch"]}' in str(row["params_json"])
        assert len({row["config_hash"] for row in rows}) == len(rows)
