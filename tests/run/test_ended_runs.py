"""A run that is ended from outside loses and doubles no finished row and can be taken up again."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from bench_process import (
    FAULTY,
    TIMED,
    bench_run,
    command,
    environment,
    fake_run,
    only_file,
    processes_with,
    rows_in,
    wait_until,
)

import bench.cli.measuring.run
from bench.cli import main
from bench.results.beside_rows import read_samples
from bench.results.reader import read_rows
from bench.results.schema import USABLE, Row
from bench.results.store import Store, samples_path, sidecar_path
from bench.run import session

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")

FAKE = ("--device", "fake")


def start(*arguments: str, out: Path, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments, out=out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(out),
        **settings,
    )


def num_rows(out: Path) -> int:
    return sum(len(read_rows(path)) for path in out.glob("*.csv"))


@pytest.mark.parametrize(
    ("ended_by", "cause"),
    [(signal.SIGINT, "the user"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")],
)
def test_interrupt_leaves_a_skipped_row_a_summary_and_no_process(
    ended_by: int, cause: str, tmp_path: Path
) -> None:
    if signal.getsignal(ended_by) == signal.SIG_IGN:
        pytest.skip("the tests themselves run under nohup")
    # With this seed the configuration that works is first.
    hang_at_two = ("-w", FAULTY, "--set", "fault=hang", "--set", "above_batch=1", "--batch", "2,1")
    process = start(*FAKE, *hang_at_two, "--seed", "0", "--json", out=tmp_path)
    wait_until(lambda: num_rows(tmp_path) == 1)
    time.sleep(0.7)  # until the trial after it has begun
    process.send_signal(ended_by)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    columns = ("status", "batch", "reasons", "detail")
    assert [[row[name] for name in columns] for row in rows_in(tmp_path)] == [
        ["OK", 1, None, None],
        ["SKIPPED", 2, "interrupted", f"stopped by {cause}"],
    ]
    document = json.loads(stdout)
    assert (document["exit_code"], document["interrupted"]) == (130, True)
    assert document["rows"] == rows_in(tmp_path)
    assert stderr.splitlines()[-1].startswith("bench: interrupted; go on with: bench run --resume")
    if sys.platform == "linux":
        assert processes_with(str(tmp_path)) == []


def test_interrupt_before_a_trial_or_after_one_loses_no_row_and_leaves_table_and_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return []

    with monkeypatch.context() as patch:
        patch.setattr(bench.cli.measuring.run, "_choices_of", ended)
        code, _, stderr = fake_run("-w", TIMED, out=tmp_path / "before")
    path = only_file(tmp_path / "before")
    hint = "bench: interrupted; go on with: bench run --resume"
    assert (code, stderr) == (130, f"{hint} {path}\n")
    assert rows_in(tmp_path / "before") == []
    assert bench_run("--resume", str(path), "--quiet", out=tmp_path)[0] == 0

    append = Store.append
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", lambda *given: (append(*given), *ended())[0])
        code, stdout, stderr = fake_run("-w", TIMED, out=tmp_path / "after")
    path = only_file(tmp_path / "after")
    assert code == 130 and stderr.splitlines()[-1] == f"{hint} {path}" and "1 OK" in stdout
    (row,) = rows_in(tmp_path / "after")
    assert row["status"] == "OK", "it was finished"
    assert len(read_samples(samples_path(path))) == 1


def test_interrupt_while_the_device_is_looked_at_ends_quietly(tmp_path: Path) -> None:
    process = start("-w", TIMED, "--device", "cpu", "--profile", "smoke", out=tmp_path)
    assert process.stderr is not None
    assert "looking at the device" in process.stderr.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_finished_rows_and_says_so_in_one_line(tmp_path: Path) -> None:
    def limit_file_size() -> None:
        """Room for the header, the sidecar and some rows: what follows fails as on a full disk."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (7000, 7000))

    trials = ("-w", f"{TIMED}:infer", "--trials", "12", "--quiet")
    process = start(*FAKE, *trials, out=tmp_path, preexec_fn=limit_file_size)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 4
    *notes, line = stderr.splitlines()
    assert line.startswith("bench: ") and "could not be written: File too large" in line
    assert all(note.startswith("rows are kept without their samples") for note in notes)
    rows, path = rows_in(tmp_path), only_file(tmp_path)
    assert 2 < len(rows) < 12
    assert {row["status"] for row in rows} == {"OK"}
    assert 0 < len(read_samples(samples_path(path))) <= len(rows)
    code, _, _ = bench_run("--resume", str(path), "--quiet", out=tmp_path)
    assert code == 0
    assert sorted(int(row["trial"] or 0) for row in rows_in(tmp_path)) == list(range(12))


def longer_plan(path: Path, *, trials: int) -> None:
    """Let the run that is stored there have more trials, or fewer."""
    plan = json.loads(sidecar_path(path).read_text())
    plan["request"]["plan"] |= {"min_trials": trials, "max_trials": trials}
    sidecar_path(path).write_text(json.dumps(plan))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_rows_are_kept_when_their_samples_cannot_be(tmp_path: Path) -> None:
    fake_run("-w", f"{TIMED}:infer", "--trials", "1", out=tmp_path)
    path = only_file(tmp_path)
    samples_path(path).unlink()
    samples_path(path).symlink_to("/dev/full")
    longer_plan(path, trials=3)
    code, _, stderr = bench_run("--resume", str(path), "--quiet", out=tmp_path)
    assert code == 0
    assert [row["status"] for row in rows_in(tmp_path)] == ["OK"] * 3
    (line,) = stderr.splitlines()
    assert "rows are kept without their samples" in line and "No space left" in line


def test_a_folder_that_takes_no_file_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("bench.run.session", "bench.run.arms", "bench.run.link_measure"):
        monkeypatch.setattr(f"{module}.ask", None, raising=False)
        monkeypatch.setattr(f"{module}.run_bench", None, raising=False)
    monkeypatch.setattr(session, "inspect_device", None)
    (tmp_path / "file").touch()
    for folder in ("/proc/results", str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        for verb in (
            ["run", "-w", "sleep", "--device", "cpu"],
            ["ab", "-w sleep-infer", "-w sleep-infer", "--blocks", "3"],
            ["calibrate", "-w sleep-infer", "--blocks", "2"],
        ):
            assert main([*verb, "--out", folder]) == 2
            said = capsys.readouterr().err
            assert said.startswith(f"bench: {folder}: results cannot be written here: ")
            assert said.endswith("choose another folder with --out\n")
    assert main(["measure-link", "--device", "cpu", "--out", "/proc/link.yaml"]) == 2
    assert "/proc: results cannot be written here" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir() if one.name != "cache"] == ["file"]


def test_runs_into_one_folder_at_once_lose_nothing(tmp_path: Path) -> None:
    timed = (*FAKE, "-w", TIMED, "--trials", "1")
    processes = [start(*timed, "--seed", str(seed), out=tmp_path) for seed in range(4)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    files = list(tmp_path.glob("*.csv"))
    runs = [[(row["run_id"], row["seed"]) for row in read_rows(path)] for path in files]
    assert all(first == second for first, second in runs), "a file has one run"
    assert {seed for run in runs for _, seed in run} == set(range(4))
    assert [len(read_samples(samples_path(path))) for path in files] == [2] * 4
    assert not list(tmp_path.glob(".*")), "nothing half made"


def test_a_run_is_measured_by_one_process_at_a_time_and_a_killed_one_holds_nothing(
    tmp_path: Path,
) -> None:
    with start(*FAKE, "-w", f"{TIMED}:infer", "--trials", "400", out=tmp_path) as process:
        wait_until(lambda: num_rows(tmp_path) > 0)
        path = only_file(tmp_path)
        for named in (str(path), path.stem.rpartition("_")[2]):
            code, stdout, stderr = bench_run("--resume", named, out=tmp_path)
            assert (code, stdout) == (2, "")
            (line,) = stderr.splitlines()
            assert f"{path.stem} is being measured by process {process.pid} of machine" in line
        process.kill()
    longer_plan(path, trials=len(rows_in(tmp_path)) + 2)
    left = [start("--resume", str(path), "--quiet", out=tmp_path) for _ in range(2)]
    codes = sorted((process.communicate(timeout=60), process.returncode)[1] for process in left)
    assert codes in ([0, 0], [0, 2]), "one after the other, or one is refused"
    trials = [row["trial"] for row in rows_in(tmp_path)]
    assert len(set(trials)) == len(trials) > 2, "no trial is repeated"
    assert not list(tmp_path.glob("*.lock")), "the last one has cleaned up"


def check_rows(rows: list[Row], *, reason: str) -> None:
    keys = [(row["config_hash"], row["device"], row["trial"], row["attempt"]) for row in rows]
    assert len(set(keys)) == len(keys), "a row is there twice"
    assert all(row["status"] in USABLE or row["reasons"] == reason for row in rows)


def kill_and_resume(out: Path, *, seed: int) -> bool:
    """End a run or its trial, resume it; return whether some rows were there and some missing."""
    out.mkdir()
    moment = random.Random(seed)
    with start(*FAKE, "-w", TIMED, "--trials", "2", out=out) as process:
        ends = moment.choice((signal.SIGKILL, signal.SIGTERM, None))
        # From the start, or once there is the file or 1 to 3 of its 4 rows: a trial is 0.2 s.
        wait_until(lambda: len(list(out.glob("*.csv"))) + num_rows(out) >= seed % 5)
        time.sleep(moment.uniform(0.0, 0.3 if seed % 5 else 0.8))
        if ends is not None:
            process.send_signal(ends)
        else:
            # A trial may have ended in between.
            for child in filter(psutil.Process.is_running, psutil.Process(process.pid).children()):
                os.kill(child.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert ends or process.returncode == 0, "a killed trial is tried again"
    wait_until(lambda: not processes_with(str(out)), timeout_s=10)
    if seed % 5 == 0 and not list(out.glob("*.csv")):
        return False  # four of five have a file to resume
    path = only_file(out)
    before = read_rows(path, note=lambda _: None)
    reason = "interrupted" if ends == signal.SIGTERM else "crashed"
    check_rows(before, reason=reason)
    resumed = str(before[0]["run_id"]) if before and seed % 2 else str(path)
    code, _, stderr = bench_run("--resume", resumed, "--quiet", out=out)
    assert code == 0, stderr
    rows = read_rows(path)
    assert rows[: len(before)] == before, "finished rows are left as they are"
    check_rows(rows, reason=reason)
    finished = {(row["config_hash"], row["trial"]) for row in rows if row["status"] in USABLE}
    assert len(finished) == 4
    kept = [record["trial"] for record in read_samples(samples_path(path))]
    assert len(kept) >= len(finished) - 1, "at most the killed moment's samples are missing"
    return 0 < len(before) < len(rows)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("seeds", "least"),
    [
        ((0, 2, 4, 6, 7, 9), 2),  # each kind of end, early and late
        pytest.param(range(100, 200), 25, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_killed_runs_are_completed_without_loss_or_doubles(
    seeds: Sequence[int], least: int, tmp_path: Path
) -> None:
    resumed = [kill_and_resume(tmp_path / str(seed), seed=seed) for seed in seeds]
    assert sum(resumed) >= least
