"""Whatever a trial does, the run goes on and its row says what happened."""

import sys
import time
from pathlib import Path

import pytest
from bench_process import FAULTY, TIMED, fake_run, processes_with, rows_in

from bench.results.schema import Row


def failed_row(*settings: str, out: Path, trials: int = 1) -> Row:
    arguments = [part for setting in settings for part in ("--set", setting)]
    done = fake_run("-w", FAULTY, "--profile", "smoke", *arguments, "--quiet", out=out)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == trials
    rows = rows_in(out)
    assert [row["attempt"] for row in rows] == list(range(1, trials + 1))
    assert {row["status"] for row in rows} == {"FAILED"}
    return rows[-1]


@pytest.mark.parametrize(
    ("fault", "reason", "detail"),
    [
        ("memory", "out_of_memory", "MemoryError: no room for the batch"),
        ("unsupported", "unsupported_op", "NotImplementedError: operator frobnicate is missing"),
        ("error", "error", "KeyError: 'first line\\nsecond line'"),
    ],
)
def test_what_a_step_raises_becomes_a_reason(
    fault: str, reason: str, detail: str, tmp_path: Path
) -> None:
    row = failed_row(f"fault={fault}", out=tmp_path)
    assert (row["reasons"], row["detail"]) == (reason, detail)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("kill", "signal SIGKILL (killed from outside; often the system was out of memory)"),
        ("segfault", "signal SIGSEGV"),
        ("exit", "exit code 0"),
        ("interrupt", "SIGINT"),  # raised inside a trial it is not the user's
    ],
)
def test_a_dead_process_is_a_crash_tried_twice(fault: str, words: str, tmp_path: Path) -> None:
    row = failed_row(f"fault={fault}", out=tmp_path, trials=2)
    assert row["reasons"] == "crashed"
    assert str(row["detail"]).startswith("the trial's process died in stage warmup: ")
    assert words in str(row["detail"])
    if fault == "kill":
        assert str(row["detail"]).endswith("last line: the last words")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hanging_trial_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    started_s = time.monotonic()
    done = fake_run(
        *("-w", FAULTY, "--set", "fault=hang_stubbornly", "--set", f"once={tmp_path / 'mark'}"),
        *("--profile", "smoke", "--timeout", "2s"),
        out=tmp_path,
    )
    assert done.returncode == 0, "the second attempt does not hang"
    assert time.monotonic() - started_s < 20
    first, second = rows_in(tmp_path)
    assert (first["status"], first["reasons"], first["attempt"]) == ("FAILED", "timeout", 1)
    assert first["detail"] == "not finished after 2 s, in stage warmup"
    assert (second["status"], second["attempt"], second["trial"]) == ("WARN", 2, 0)
    assert processes_with(str(tmp_path)) == []


def test_other_configurations_go_on_when_one_fails(tmp_path: Path) -> None:
    done = fake_run(
        *("-w", f"{FAULTY},{TIMED}", "--set", "batch=1", "--profile", "smoke"), out=tmp_path
    )
    assert done.returncode == 0
    done = fake_run(
        *("-w", FAULTY, "--set", "fault=memory,none", "--trials", "3"), out=tmp_path / "two"
    )
    assert done.returncode == 4, "one configuration has no usable row"
    statuses = sorted(str(row["status"]) for row in rows_in(tmp_path / "two"))
    assert statuses == ["FAILED", "OK", "OK", "OK"]
    assert "out_of_memory: 1 of 4 trials, faulty-infer: device or host memory" in done.stdout


def test_crash_that_does_not_repeat_leaves_a_usable_second_attempt(tmp_path: Path) -> None:
    done = fake_run(
        *("-w", FAULTY, "--set", "fault=kill", "--set", f"once={tmp_path / 'mark'}"),
        *("--trials", "1"),
        out=tmp_path,
    )
    assert done.returncode == 0
    assert [(row["status"], row["attempt"]) for row in rows_in(tmp_path)] == [
        ("FAILED", 1),
        ("OK", 2),
    ]


def test_oom_shrink_halves_the_batch_and_says_so(tmp_path: Path) -> None:
    done = fake_run(
        *("-w", FAULTY, "--set", "fault=memory", "--set", "above_batch=3", "--batch", "8"),
        *("--trials", "2", "--oom-shrink"),
        out=tmp_path,
    )
    assert done.returncode == 0
    rows = rows_in(tmp_path)
    assert [(row["batch"], row["status"]) for row in rows] == [
        (8, "FAILED"),
        (4, "FAILED"),
        (2, "WARN"),
        (2, "WARN"),
    ]
    assert [row["reasons"] for row in rows] == [
        "out_of_memory",
        "oom_shrunk;out_of_memory",
        "oom_shrunk",
        "oom_shrunk",
    ]
    assert '"batch":2' in str(rows[-1]["params_json"])
    assert len({row["config_hash"] for row in rows}) == 3
    assert "faulty-infer: out of memory; trying batch 4" in done.stderr


def test_oom_shrink_gives_up_at_batch_one_and_is_off_by_default(tmp_path: Path) -> None:
    flags = ("-w", FAULTY, "--set", "fault=memory", "--batch", "2", "--trials", "1")
    assert fake_run(*flags, "--oom-shrink", out=tmp_path / "on").returncode == 4
    assert [row["batch"] for row in rows_in(tmp_path / "on")] == [2, 1]
    assert fake_run(*flags, out=tmp_path / "off").returncode == 4
    assert [row["batch"] for row in rows_in(tmp_path / "off")] == [2]


def test_oom_shrink_does_not_repeat_a_batch_of_the_sweep(tmp_path: Path) -> None:
    done = fake_run(
        *("-w", FAULTY, "--set", "fault=memory", "--set", "above_batch=2", "--batch", "4,2"),
        *("--trials", "1", "--oom-shrink"),
        out=tmp_path,
    )
    assert done.returncode == 0
    assert sorted((row["batch"], row["status"]) for row in rows_in(tmp_path)) == [
        (2, "OK"),
        (4, "FAILED"),
    ]
