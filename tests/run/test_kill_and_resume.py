"""kill -9 of the parent or of a trial, at random moments: nothing finished is lost or doubled."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from bench_process import TIMED, command, environment, processes_with

from bench.results.reader import read_rows
from bench.results.samples import read_samples
from bench.results.schema import USABLE, Row
from bench.results.store import samples_path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TRIALS = 2
CONFIGURATIONS = 2
LONGEST_S = 1.2
"""About what the whole run takes."""


def kill_during(out: Path, *, kills_parent: bool, after_s: float) -> None:
    """Start a run and kill it, or the trial that runs then."""
    process = subprocess.Popen(
        command("--device", "fake", "-w", TIMED, "--trials", str(TRIALS), out=out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(out),
    )
    time.sleep(after_s)
    if kills_parent:
        process.kill()
        process.wait(20)
        return
    for child in psutil.Process(process.pid).children():
        # It may have ended in between.
        if child.is_running():
            os.kill(child.pid, signal.SIGKILL)
    assert process.wait(60) == 0, "a killed trial is tried again"


def no_process_is_left(out: Path) -> bool:
    deadline_s = time.monotonic() + 10
    while processes_with(str(out)):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


def check_rows(rows: list[Row]) -> None:
    keys = [(row["config_hash"], row["device"], row["trial"], row["attempt"]) for row in rows]
    assert len(set(keys)) == len(keys), "a row is there twice"
    for row in rows:
        assert row["status"] in USABLE or row["reasons"] == "crashed"


def kill_and_resume(out: Path, *, seed: int) -> bool:
    """Return whether there was anything to resume."""
    moment = random.Random(seed)
    kill_during(out, kills_parent=moment.random() < 0.6, after_s=moment.uniform(0.0, LONGEST_S))
    assert no_process_is_left(out)
    files = list(out.glob("*.csv"))
    if not files:
        return False
    before = read_rows(files[0], note=lambda _: None)
    check_rows(before)
    resume = command("--resume", str(files[0]), "--quiet", out=out)
    done = subprocess.run(resume, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = read_rows(files[0])
    assert rows[: len(before)] == before
    check_rows(rows)
    finished = {(row["config_hash"], row["trial"]) for row in rows if row["status"] in USABLE}
    assert len(finished) == TRIALS * CONFIGURATIONS
    kept = [record["trial"] for record in read_samples(samples_path(files[0]))]
    assert len(kept) >= len(finished) - 1, "at most the killed moment's samples are missing"
    return True


def kill_at_moments(seeds: range, folder: Path) -> int:
    folders = {seed: folder / str(seed) for seed in seeds}
    for out in folders.values():
        out.mkdir()
    with ThreadPoolExecutor(max_workers=2) as pool:
        return sum(pool.map(lambda seed: kill_and_resume(folders[seed], seed=seed), seeds))


def test_killed_runs_are_completed_without_loss_or_doubles(tmp_path: Path) -> None:
    assert kill_at_moments(range(14), tmp_path) >= 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hundred_killed_runs_are_completed_without_loss_or_doubles(tmp_path: Path) -> None:
    assert kill_at_moments(range(100, 200), tmp_path) >= 50
