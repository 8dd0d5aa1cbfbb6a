"""What many processes and sudden deaths do to result files: nothing.

As a program it appends numbered rows until it is given or killed, and prints each finished number.
"""

import fcntl
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from result_rows import create_store, small_row

from bench.results.reader import read_rows
from bench.results.store import Store

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def _start_writer(path: Path, *, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, str(path), str(first), str(count)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def _finish(process: subprocess.Popen[str]) -> list[int]:
    output, _ = process.communicate(timeout=120)
    # A number may be cut by the kill as well; the row of an uncut one must be there.
    return [int(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]


def test_eight_writers_wait_for_a_lock_and_lose_and_tear_nothing(tmp_path: Path) -> None:
    path = create_store(tmp_path).path
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writers = [_start_writer(path, first=100 * n, count=25) for n in range(8)]
        time.sleep(1.0)
        assert read_rows(path) == [], "another holds the lock"
    finished = [_finish(writer) for writer in writers]
    notes: list[str] = []
    trials = [row["trial"] for row in read_rows(path, note=notes.append)]
    assert notes == []
    assert sorted(trials) == sorted(trial for part in finished for trial in part)
    assert len(trials) == 200
    # Each writer's own rows stay in its order.
    for number in range(8):
        own = [trial for trial in trials if trial // 100 == number]
        assert own == sorted(own)


def test_a_killed_writer_leaves_every_finished_row_readable(tmp_path: Path) -> None:
    choose = random.Random(20)
    path = create_store(tmp_path).path
    reported: list[int] = []
    for death in range(12):
        writer = _start_writer(path, first=10_000 * death, count=10_000)
        assert writer.stdout is not None
        reported.append(int(writer.stdout.readline()))
        time.sleep(choose.uniform(0.0, 0.05))
        writer.kill()
        reported += _finish(writer)
        present = [row["trial"] for row in read_rows(path, note=lambda _: None)]
        assert set(reported) <= set(present)
        assert len(present) == len(set(present))
    with Store.open(path, note=lambda _: None) as store:
        store.append(small_row(trial=999_999))
        assert store.rows()[-1]["trial"] == 999_999


if __name__ == "__main__":
    first, count = int(sys.argv[2]), int(sys.argv[3])
    with Store.open(Path(sys.argv[1]), note=lambda _: None) as store:
        for trial in range(first, first + count):
            store.append(small_row(trial=trial, detail='"quoted",\nand long ' * 200))
            print(trial, flush=True)
