"""Measure configurations of a result file again, by the plan that its sidecar kept.

Each is a `bench run` of its own with the flags that mean the same, so that another Python (another
revision's environment) can do it: flags outlive the plan's format.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import DataError, ExitCode, MeasurementError
from bench.results.sidecar import read_sidecar
from bench.run.plan import Plan, Planned
from bench.run.request import command_words, request_for


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to measure: which Python, in which folder."""

    python: str = sys.executable
    folder: Path | None = None


def measure_again(
    path: Path,
    config_hashes: Iterable[str],
    *,
    trials: int,
    place: Place,
    note: Callable[[str], None],
) -> list[Path]:
    """Run the named configurations of the file's plan again; returns the new result files."""
    wanted = set(config_hashes)
    try:
        plan = Plan.from_dict(read_sidecar(path).request["plan"])
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: its plan cannot be read ({error}); it cannot be run again") from (
            error
        )
    folder = Path(tempfile.mkdtemp(prefix="bench-again-"))
    for planned in plan.planned:
        if planned.config_hash in wanted:
            note(f"measuring {planned.config.name} of {path.name} again")
            _run(planned, plan, trials=trials, place=place, out=folder)
    return sorted(folder.glob("*.csv"))


def _run(planned: Planned, plan: Plan, *, trials: int, place: Place, out: Path) -> None:
    command = [place.python, "-m", "bench", "run", *command_words(request_for(planned.config))]
    command += ["--profile", plan.profile, "--trials", str(trials), "--out", str(out), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place.folder)
    if done.returncode == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if done.returncode not in (ExitCode.OK, ExitCode.INVALID):
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise MeasurementError(f"{planned.config.name} cannot be measured again: {last}")
