"""Lines in a shell: `bench` as a real process, with the streams and variables of a test."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = f"{sys.executable} -m bench"
EACH = (
    f"{sys.executable} -c 'import shlex, sys; from bench.cli import main\n"
    "for line in sys.argv[1:]: print(main(shlex.split(line)))'"
)
"""Runs each of the lines that follow, in one process, and prints their exit codes."""


def shell(
    line: str, *, folder: Path, descriptor: int | None = None, **variables: str | None
) -> subprocess.CompletedProcess[str]:
    """Run a line in bash; a variable that is None is taken out of the environment."""
    settings = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", **variables}
    environment = {**os.environ, **{n: v for n, v in settings.items() if v is not None}}
    for name in (name for name, value in settings.items() if value is None):
        environment.pop(name, None)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env=environment,
        pass_fds=() if descriptor is None else (descriptor,),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
