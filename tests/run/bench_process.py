"""Run `bench` as a user does, in this process or in one of its own, and read what it left."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from bench.cli import main
from bench.results.reader import read_rows
from bench.results.schema import Row

ROOT = Path(__file__).resolve().parents[2]
WORKLOADS = ROOT / "tests" / "workload_files"
TIMED = str(WORKLOADS / "timed.py")
FAULTY = str(WORKLOADS / "faulty.py")
NET = str(WORKLOADS / "small_net.py")
RANKS_NET = str(WORKLOADS / "ranks_net.py")


def environment(folder: Path | None = None) -> dict[str, str]:
    """Return an environment in which `bench` can be imported; `processes_with` finds the folder."""
    own = {} if folder is None else {"GAPBENCH_TEST_FOLDER": str(folder)}
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **own}


def command(*arguments: str, out: Path) -> list[str]:
    return [sys.executable, "-m", "bench", "run", *arguments, "--out", str(out)]


def bench_run(*arguments: str, out: Path) -> tuple[int, str, str]:
    """Run to the end in this process; returns the exit code and what was printed."""
    with redirect_stdout(StringIO()) as stdout, redirect_stderr(StringIO()) as stderr:
        code = main(["run", *arguments, "--out", str(out)])
    assert "Traceback" not in stderr.getvalue()
    return code, stdout.getvalue(), stderr.getvalue()


def fake_run(*arguments: str, out: Path) -> tuple[int, str, str]:
    return bench_run("--device", "fake", *arguments, out=out)


def job_left_over(port: int) -> dict[str, str]:
    """What torchrun gave a rank of a job whose store was at that port of this machine."""
    numbers = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    numbers |= {"GROUP_RANK": "0", "ROLE_RANK": "0", "ROLE_NAME": "default"}
    agents = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "none"}
    return {**numbers, **agents, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def only_file(out: Path) -> Path:
    (path,) = out.glob("*.csv")
    return path


def rows_in(out: Path) -> list[Row]:
    return read_rows(only_file(out))


def processes_with(text: str) -> list[int]:
    """Process ids whose environment or command line has this text; Linux only."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            content = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if text.encode() in content:
            found.append(int(folder.name))
    return found


def wait_until(is_so: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
