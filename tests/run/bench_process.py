"""Run `bench` as a user does, in a process of its own, and read what it left."""

import os
import subprocess
import sys
from pathlib import Path

from bench.results.reader import read_rows
from bench.results.schema import Row

ROOT = Path(__file__).resolve().parents[2]
WORKLOADS = ROOT / "tests" / "workload_files"
TIMED = str(WORKLOADS / "timed.py")
FAULTY = str(WORKLOADS / "faulty.py")
NET = str(WORKLOADS / "small_net.py")

Done = subprocess.CompletedProcess[str]


def environment() -> dict[str, str]:
    """Return an environment in which `bench` can be imported from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(*arguments: str) -> list[str]:
    """Return the command line of `bench run` on the fake device."""
    return [sys.executable, "-m", "bench", "run", *arguments]


def bench_run(*arguments: str, out: Path, timeout_s: float = 60) -> Done:
    """Run to the end; nobody is asked anything."""
    return subprocess.run(
        command(*arguments, "--out", str(out)),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        env=environment(),
        check=False,
    )


def fake_run(*arguments: str, out: Path) -> Done:
    """Run on the fake device."""
    return bench_run("--device", "fake", *arguments, out=out)


def only_file(out: Path) -> Path:
    """Return the only result file in a folder."""
    (path,) = out.glob("*.csv")
    return path


def rows_in(out: Path) -> list[Row]:
    """Return the rows of the only result file in a folder."""
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
