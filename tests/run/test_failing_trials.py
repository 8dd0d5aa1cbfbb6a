"""Whatever a trial does, the run goes on and its row says what happened."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench_process import FAULTY, fake_run, processes_with, rows_in

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
        *("-w", FAULTY, "--profile", "smoke", "--set", faults, "--quiet"), out=tmp_path
    )
    rows = rows_in(tmp_path)
    assert code == 4
    assert len(stderr.splitlines()) == len(rows) == len(RAISED) + 2 * len(DEATHS)
    assert {row["status"] for row in rows} == {"FAILED"}
    found: dict[str, list[tuple[object, object, str]]] = {}
    for row in rows:
        attempt = (row["attempt"], row["reasons"], str(row["detail"]))
        found.setdefault(json.loads(str(row["params_json"]))["fault"], []).append(attempt)
    for fault, reason_and_detail in RAISED.items():
        assert found[fault] == [(1, *reason_and_detail)]
    for fault, words in DEATHS.items():
        assert [(attempt, reason) for attempt, reason, _ in found[fault]] == [
            (1, "crashed"),
            (2, "crashed"),
        ]
        for _, _, detail in found[fault]:
            assert detail.startswith("the trial's process died in stage warmup: ")
            assert words in detail
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
    code, stdout, _ = fake_run(
        "-w", FAULTY, "--set", "fault=memory,none", "--trials", "3", out=tmp_path
    )
    assert code == 4, "one configuration has no usable row"
    statuses = sorted(str(row["status"]) for row in rows_in(tmp_path))
    assert statuses == ["FAILED", "OK", "OK", "OK"]
    assert "out_of_memory: 1 of 4 trials, faulty-infer: device or host memory" in stdout


def shrunk(out: Path, *flags: str, batch: str, code: int) -> tuple[Sequence[object], str]:
    """Batches and statuses of a run whose memory is never enough for a batch over some size."""
    found, _, stderr = fake_run(
        *("-w", FAULTY, "--set", "fault=memory", "--batch", batch, *flags), out=out
    )
    assert found == code
    return [(row["batch"], row["status"], row["reasons"]) for row in rows_in(out)], stderr


def test_oom_shrink_halves_the_batch_until_it_fits_and_says_so(tmp_path: Path) -> None:
    flags = ("--set", "above_batch=3", "--trials", "2", "--oom-shrink")
    rows, stderr = shrunk(tmp_path / "a", *flags, batch="8", code=0)
    assert rows == [
        (8, "FAILED", "out_of_memory"),
        (4, "FAILED", "oom_shrunk;out_of_memory"),
        (2, "WARN", "oom_shrunk"),
        (2, "WARN", "oom_shrunk"),
    ]
    assert "faulty-infer: out of memory; trying batch 4" in stderr
    last = rows_in(tmp_path / "a")
    assert '"batch":2' in str(last[-1]["params_json"])
    assert len({row["config_hash"] for row in last}) == 3

    flags = ("--trials", "1", "--oom-shrink")
    rows, _ = shrunk(tmp_path / "b", *flags, batch="2", code=4)
    assert [row[0] for row in rows] == [2, 1], "it gives up at batch one"
    rows, _ = shrunk(tmp_path / "c", "--trials", "1", batch="2", code=4)
    assert [row[0] for row in rows] == [2], "off by default"
    rows, _ = shrunk(tmp_path / "d", *flags, "--set", "above_batch=2", batch="4,2", code=0)
    assert sorted(row[:2] for row in rows) == [(2, "OK"), (4, "FAILED")], "none of the sweep twice"
