"""A run that is ended from outside keeps its finished rows and can be taken up again."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench_process import (
    FAULTY,
    TIMED,
    bench_run,
    command,
    environment,
    fake_run,
    processes_with,
    rows_in,
)

from bench.results.reader import read_rows
from bench.results.samples import read_samples
from bench.results.store import samples_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")

HANG_AT_BATCH_TWO = ("-w", FAULTY, "--set", "fault=hang", "--set", "above_batch=1")


def start(*arguments: str, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command(*arguments), "--out", str(out)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "GAPBENCH_TEST_FOLDER": str(out)},
    )


def wait_until_hanging(out: Path) -> None:
    """Wait for the first row, and then for the trial after it to have begun."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        files = list(out.glob("*.csv"))
        if files and len(read_rows(files[0])) == 1:
            time.sleep(0.7)
            return
        time.sleep(0.02)
    raise AssertionError("no row appeared")


def interrupted(out: Path, *arguments: str) -> tuple[int, str, str]:
    # With this seed the configuration that works comes first.
    process = start(
        *("--device", "fake", *HANG_AT_BATCH_TWO, "--batch", "2,1", "--seed", "0"),
        *arguments,
        out=out,
    )
    wait_until_hanging(out)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    return process.returncode, stdout, stderr


def test_interrupt_leaves_a_skipped_row_a_summary_and_no_process(tmp_path: Path) -> None:
    code, stdout, stderr = interrupted(tmp_path, "--json")
    assert code == 130
    assert "Traceback" not in stderr
    first, second = rows_in(tmp_path)
    assert (first["status"], first["batch"]) == ("OK", 1)
    assert (second["status"], second["reasons"]) == ("SKIPPED", "interrupted")
    assert second["throughput_per_s"] is None
    document = json.loads(stdout)
    assert (document["exit_code"], document["interrupted"]) == (130, True)
    assert [row["status"] for row in document["rows"]] == ["OK", "SKIPPED"]
    assert stderr.splitlines()[-1].startswith("bench: interrupted; go on with: bench run --resume")
    if sys.platform == "linux":
        assert processes_with(str(tmp_path)) == []


def test_an_interrupted_run_still_prints_its_table(tmp_path: Path) -> None:
    code, stdout, _ = interrupted(tmp_path)
    assert code == 130
    assert "1 OK" in stdout and "1 SKIPPED" in stdout


def test_interrupt_while_the_device_is_looked_at_ends_quietly(tmp_path: Path) -> None:
    process = start("-w", TIMED, "--device", "cpu", "--profile", "smoke", out=tmp_path)
    assert process.stderr is not None
    assert "looking at the device" in process.stderr.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_terminated_run_is_resumed_to_its_end(tmp_path: Path) -> None:
    process = start("--device", "fake", "-w", TIMED, "--trials", "8", out=tmp_path)
    wait_until_hanging(tmp_path)
    process.terminate()
    process.communicate(timeout=20)
    before = rows_in(tmp_path)
    assert 0 < len(before) < 16
    run_id = str(before[0]["run_id"])
    done = bench_run("--resume", run_id, "--quiet", out=tmp_path)
    assert done.returncode == 0
    rows = rows_in(tmp_path)
    assert rows[: len(before)] == before, "finished rows are left as they are"
    keys = [(row["config_hash"], row["trial"]) for row in rows]
    assert len(set(keys)) == len(keys) == 16


def limit_file_size() -> None:
    """Room for the header, the sidecar and some rows: what follows fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, 7000))


def test_full_disk_keeps_finished_rows_and_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [*command("--device", "fake", "-w", f"{TIMED}:infer", "--trials", "40", "--quiet")]
        + ["--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        preexec_fn=limit_file_size,
        check=False,
    )
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench: ") and "could not be written: File too large" in line
    rows = rows_in(tmp_path)
    assert 2 < len(rows) < 40
    assert {row["status"] for row in rows} == {"OK"}
    (path,) = tmp_path.glob("*.csv")
    assert 0 < len(read_samples(samples_path(path))) <= len(rows)
    done = bench_run("--resume", str(path), "--quiet", out=tmp_path)
    assert done.returncode == 0
    assert sorted(int(row["trial"] or 0) for row in rows_in(tmp_path)) == list(range(40))


def test_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("here already")
    done = fake_run("-w", TIMED, out=tmp_path / "results")
    assert done.returncode == 2
    assert "choose another folder with --out" in done.stderr
    assert "Traceback" not in done.stderr


def test_sixteen_runs_into_one_folder_lose_nothing(tmp_path: Path) -> None:
    processes = [
        start("--device", "fake", "-w", TIMED, "--trials", "2", "--seed", str(seed), out=tmp_path)
        for seed in range(16)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    files = sorted(tmp_path.glob("*.csv"))
    assert len(files) == 16
    seeds = set()
    for path in files:
        rows = read_rows(path)
        assert len({(row["config_hash"], row["trial"]) for row in rows}) == len(rows) == 4
        assert len({row["run_id"] for row in rows}) == 1
        assert len(read_samples(samples_path(path))) == 4
        seeds |= {row["seed"] for row in rows}
    assert seeds == set(range(16))
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")], "nothing half made"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")
def test_name_that_is_no_text_is_told_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [os.fsencode(part) for part in command("--device", "fake", "-w")] + [b"\xff\xfe.py"],
        capture_output=True,
        timeout=60,
        cwd=tmp_path,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(b"does not exist")


def test_reader_that_has_seen_enough_does_not_upset_the_run(tmp_path: Path) -> None:
    process = start("--device", "fake", "-w", TIMED, "--trials", "1", out=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    with process:
        process.stdout.close()
        stderr = process.stderr.read()
    assert "Traceback" not in stderr
    assert len(rows_in(tmp_path)) == 2
