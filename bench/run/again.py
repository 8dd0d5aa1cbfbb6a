"""Measure configurations of a result file again, by the plan that its sidecar kept.

Each is a `bench run` of its own with the flags that mean the same, so that another Python (another
revision's environment) can do it: flags outlive the plan's format.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import DataError, ExitCode, MeasurementError
from bench.core.nouns import Layout
from bench.results.sidecar import read_sidecar
from bench.run.request import Plan, Planned


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to measure: which Python, in which folder."""

    python: str = sys.executable
    folder: Path | None = None


def flags_of(planned: Planned) -> list[str]:
    """Flags of `bench run` that make exactly this configuration."""
    config = planned.config
    name = f"{config.source}:{config.phase}" if config.source else config.name
    flags = ["--workload", name, "--dtype", config.dtype, "--device", config.device]
    flags += ["--size", config.size] if config.size else []
    for key, value in config.params.items():
        flags += ["--batch", str(value)] if key == "batch" else ["--set", f"{key}={value}"]
    flags += ["--compile"] if config.compile else []
    flags += ["--channels-last"] if config.channels_last else []
    flags += [] if config.data == "generated" else ["--data", config.data]
    for flag, number in (("--threads", config.threads), ("--workers", config.workers)):
        flags += [] if number is None else [flag, str(number)]
    flags += ["--chip-limit", config.chip_limit] if config.chip_limit else []
    return flags + spread_flags(config.layout)


def spread_flags(layout: Layout) -> list[str]:
    """Flags of `bench run` that spread the work just so; none for one plain device."""
    usual = Layout()
    flags = ["--grad-accum", str(layout.grad_accum)] if layout.grad_accum > 1 else []
    if layout.is_single:
        return flags
    flags += ["--parallel", str(layout.strategy), "--mode", layout.mode]
    for flag, count in (("--dp", layout.data), ("--tp", layout.tensor), ("--pp", layout.pipeline)):
        flags += [flag, str(count)]
    flags += ["--link", layout.link] if layout.link else []
    if layout.bucket_bytes != usual.bucket_bytes:
        flags += ["--bucket-mb", repr(layout.bucket_bytes / 2**20)]
    flags += ["--schedule", layout.schedule] if layout.schedule != usual.schedule else []
    flags += ["--mitigate", layout.mitigate] if layout.mitigate else []
    if layout.link and layout.contention != usual.contention:
        flags += ["--contention", layout.contention]
    return flags


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
        plan = Plan.from_dict(_plan_of(path))
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: its plan cannot be read ({error}); it cannot be run again") from (
            error
        )
    folder = Path(tempfile.mkdtemp(prefix="bench-again-"))
    for planned in plan.planned:
        if planned.config_hash in wanted:
            note(f"measuring {planned.config.name} of {path.name} again")
            _run(planned, plan, trials=trials, place=place, out=folder)
    return sorted(folder.glob("*.csv"))


def _plan_of(path: Path) -> Mapping[str, Any]:
    plan = read_sidecar(path).request["plan"]
    if not isinstance(plan, dict):
        raise TypeError("not a mapping")
    return plan


def _run(planned: Planned, plan: Plan, *, trials: int, place: Place, out: Path) -> None:
    command = [place.python, "-m", "bench", "run", *flags_of(planned)]
    command += ["--profile", plan.profile, "--trials", str(trials), "--out", str(out), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place.folder)
    if done.returncode == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if done.returncode not in (ExitCode.OK, ExitCode.INVALID):
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise MeasurementError(f"{planned.config.name} cannot be measured again: {last}")
