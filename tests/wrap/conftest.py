"""Run `bench wrap` as a user does, in a process of its own, and read what it left."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.results.reader import read_rows
from bench.results.schema import Row

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent / "programs"


@dataclass(frozen=True, kw_only=True)
class Wrapped:
    """What a run of `bench wrap` left."""

    code: int
    output: str
    """Standard error: the notes, and what the program wrote."""
    rows: list[Row] = field(repr=False)

    @property
    def error(self) -> str:
        """The line that says why there was no run, or what became of one; '' where all is well."""
        lines = self.output.splitlines()
        lines = [line for line in lines if line.startswith("bench: ") or ": FAILED: " in line]
        return lines[-1] if lines else ""


Wrap = Callable[..., Wrapped]


@pytest.fixture
def wrap(tmp_path: Path) -> Wrap:
    """Run `bench wrap FLAGS -- COMMAND`, in the smoke profile; a file of programs/ for a name.

    Packages of `path` are installed beside ours.
    """

    def run(*flags: str, command: list[str], path: Path | None = None) -> Wrapped:
        out = tmp_path / f"results{len(list(tmp_path.glob('results*')))}"
        words = [str(PROGRAMS / one) if one.endswith(".py") else one for one in command]
        words = [sys.executable if one == "python" else one for one in words]
        bench = [sys.executable, "-m", "bench", "wrap", "--profile", "smoke", "--out", str(out)]
        paths = os.pathsep.join(map(str, [*([] if path is None else [path]), ROOT]))
        scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            [*bench, *flags, "--", *words],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PATH": scripts},
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
        )
        files = list(out.glob("*.csv"))
        rows = read_rows(files[0]) if files else []
        return Wrapped(code=done.returncode, output=done.stderr, rows=rows)

    return run
