"""`bench run` in a process of its own, for verbs that need rows and have not got them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.core.errors import ExitCode, MeasurementError
from bench.measure.asking import last_line_of


def run_bench(
    flags: Sequence[str], *, out: Path, python: str = sys.executable, shows_progress: bool = True
) -> Path:
    """Return the result file of a run; `MeasurementError` with its words where there is none.

    A configuration that cannot be measured is a row all the same.
    """
    done = subprocess.run(
        [python, "-m", "bench", "run", *flags, "--quiet", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=None if shows_progress else subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    lines = done.stdout.strip().splitlines()
    if not lines or not Path(lines[-1]).is_file():
        raise MeasurementError(last_line_of(done).removeprefix("bench: "))
    return Path(lines[-1])
