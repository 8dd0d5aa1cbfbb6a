"""`bench run` or `wrap` in a process of its own, and two arms in one job: such runs in ABBA blocks.

Each trial of an arm is a run with its flags. An arm may use another Python (another checkout or
environment), so that two revisions are measured side by side. Rows of an arm end up in one file:
its configurations in the order of its plan, the trial number counting on, so that the n-th trial of
A and of B belong to the same block.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs

from bench.core.errors import ExitCode, MeasurementError, UsageError
from bench.core.units import format_duration
from bench.measure.asking import last_line_of
from bench.results.reader import read_rows
from bench.results.schema import USABLE, Row, Value
from bench.results.store import Sidecar, Store, read_sidecar
from bench.run.progress import describe_row
from bench.run.runner import utc_now

RESERVED_FLAGS = {"--trials", "--profile", "--out", "--resume", "--quiet", "-q", "--json"}
RESERVED_FLAGS |= {"--dry-run"}
"""Flags of `bench run` and `bench wrap` that the blocks decide themselves."""
SCHEDULED_FLAGS = {"--arrivals", "--scenario"}
VERBS = ("run", "wrap")
"""What the first word of an arm may be; without one it is `run`."""


@dataclass(kw_only=True)
class ArmRuns:
    """One arm and what it has measured."""

    name: str
    verb: str = "run"
    flags: tuple[str, ...]
    python: str = sys.executable
    rows_by_trial: list[list[Row]] = field(default_factory=list)
    """Last attempt's row of each configuration, in the order of the plan, one list per trial."""
    blocks: list[int] = field(default_factory=list)
    """Block of each trial."""
    sidecar: Sidecar | None = None

    def configurations(self, *, trial: int = 0) -> list[tuple[str, str, str]]:
        """(workload, version, config_hash) of each configuration."""
        rows = self.rows_by_trial[trial] if self.rows_by_trial else []
        names = ("workload", "workload_version", "config_hash")
        return [tuple(str(row.get(name)) for name in names) for row in rows]  # type: ignore[misc]

    @property
    def workloads(self) -> str:
        """Names of what it runs."""
        return ", ".join(workload for workload, _, _ in self.configurations())


def run_bench(
    flags: Sequence[str],
    *,
    out: Path,
    verb: str = "run",
    python: str = sys.executable,
    shows_progress: bool = True,
) -> Path:
    """Return the result file of a run; `MeasurementError` with its words where there is none.

    A configuration that cannot be measured is a row all the same.
    """
    done = subprocess.run(
        # A program's own arguments stand behind the flags.
        [python, "-m", "bench", verb, "--quiet", "--out", str(out), *flags],
        stdout=subprocess.PIPE,
        stderr=None if shows_progress else subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
        env=_environment(verb, python=python),
    )
    if done.returncode == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    lines = done.stdout.strip().splitlines()
    if not lines or not Path(lines[-1]).is_file():
        raise MeasurementError(last_line_of(done).removeprefix("bench: "))
    return Path(lines[-1])


def _environment(verb: str, *, python: str) -> dict[str, str]:
    """Return ours without what is reserved; a wrapped `python` is that of the arm."""
    prefix = f"BENCH_{verb}_".upper()
    reserved = {prefix + one.strip("-").replace("-", "_").upper() for one in RESERVED_FLAGS}
    kept = {name: value for name, value in os.environ.items() if name not in reserved}
    if python != sys.executable and (found := shutil.which(python)):
        kept["PATH"] = os.pathsep.join([str(Path(found).parent), kept.get("PATH", os.defpath)])
    return kept


def own_flags(words: Sequence[str]) -> Sequence[str]:
    """Return what comes before `--`: the rest is a program and its arguments."""
    return words[: words.index("--")] if "--" in words else words


def check_flags(flags: Sequence[str]) -> None:
    """Refuse flags that the blocks decide, or that leave no speed; `UsageError` names them."""
    for flag in own_flags(flags):
        if flag.partition("=")[0] in SCHEDULED_FLAGS:
            raise UsageError(
                f"{flag} cannot be part of an arm: arms are compared by speed, and a schedule "
                "says how fast requests come; `bench run` both and `bench report` their files"
            )
        if flag.partition("=")[0] in RESERVED_FLAGS:
            raise UsageError(
                f"{flag} cannot be part of an arm: how often, how long and where to is decided for "
                "both arms alike (--blocks, --quick, --out)"
            )


def run_blocks(
    arms: tuple[ArmRuns, ArmRuns],
    *,
    order: Sequence[str],
    profile: str,
    note: Callable[[str], None],
) -> None:
    """Run the arms in the order given, four trials a block; fills their rows.

    Where an arm fails throughout the first block, more of the same would only take time.
    """
    by_name = {arm.name: arm for arm in arms}
    started_s = time.monotonic()
    for index, name in enumerate(order):
        arm = by_name[name]
        left_s = (time.monotonic() - started_s) / max(index, 1) * (len(order) - index)
        left = f", about {format_duration(left_s)} left" if index else ""
        note(f"[{index + 1}/{len(order)}] block {index // 4 + 1}, arm {name}{left}")
        rows, sidecar = _run_once(arm, profile=profile, seed=index)
        for row in rows:
            note(f"      {row['workload']}: {describe_row(row)}")
        arm.sidecar = arm.sidecar or sidecar
        arm.rows_by_trial.append(rows)
        arm.blocks.append(index // 4)
        if arm.configurations() != arm.configurations(trial=-1):
            raise MeasurementError(f"arm {name} changed its configurations between two trials")
        names = [one.workloads for one in arms if one.blocks]
        if names[0] != names[-1]:
            hint = "; --name gives two programs one name" if arm.verb == "wrap" else ""
            raise UsageError(
                f"the arms do not run the same workloads: {' against '.join(names)}{hint}"
            )
        failing = [one.name for one in arms if index == 3 and _always_fails(one)]
        if failing:
            whose = " and arm ".join(failing)
            note(f"arm {whose} failed in every trial of a block: no more follow")
            return


def _always_fails(arm: ArmRuns) -> bool:
    """Whether nothing ran in any trial; what was only disturbed may do better in the next."""
    rows = itertools.chain.from_iterable(arm.rows_by_trial)
    return all(row["status"] in ("FAILED", "SKIPPED") for row in rows)


def _run_once(arm: ArmRuns, *, profile: str, seed: int) -> tuple[list[Row], Sidecar]:
    flags = ["--profile", profile, "--trials", "1", *arm.flags]
    if not any(flag.partition("=")[0] == "--seed" for flag in own_flags(arm.flags)):
        flags = ["--seed", str(seed), *flags]
    with tempfile.TemporaryDirectory(prefix="bench-arm-", ignore_cleanup_errors=True) as folder:
        try:
            started: Any = {"verb": arm.verb, "python": arm.python, "shows_progress": False}
            path = run_bench(flags, out=Path(folder), **started)
        except MeasurementError as error:
            raise UsageError(f"arm {arm.name}: {error}") from error
        sidecar = read_sidecar(path)
        return _last_attempts(read_rows(path), sidecar), sidecar


def _last_attempts(rows: list[Row], sidecar: Sidecar) -> list[Row]:
    """One row per configuration: the usable attempt, else the last; in the order of the plan."""
    chosen: dict[Value, Row] = {}
    for row in rows:
        if chosen.get(row["config_hash"], {}).get("status") not in USABLE:
            chosen[row["config_hash"]] = row
    # Rows come in the random order of the run; the plan's order is that of its workloads.
    plan: Any = sidecar.request["plan"]
    configs = [one["config"] for one in plan["planned"]]
    order = [_key_of_config(one) for one in configs]

    def place(row: Row) -> int:
        params = json.loads(str(row["params_json"]))
        layout = (row.get("link") or "", row.get("device_count"), row.get("mitigation") or "")
        key = (row["workload"], params, row.get("dtype"), *layout)
        return order.index(key) if key in order else len(order)

    return sorted(chosen.values(), key=place)


def _key_of_config(config: dict[str, Any]) -> tuple[Any, ...]:
    name = config["workload"] if config.get("script") else f"{config['workload']}-{config['phase']}"
    layout = config["layout"]
    devices = layout["data"] * layout["tensor"] * layout["pipeline"]
    spread = (layout["link"], devices, layout["mitigate"])
    return (name, config["params"], config["dtype"], *spread)


def write_arm(arm: ArmRuns, *, folder: Path) -> Path:
    """Write an arm's rows into one result file and return its path."""
    assert arm.sidecar is not None and arm.rows_by_trial
    run_id = f"{secrets.token_hex(3)}{arm.name.lower()}"
    sidecar = structs.replace(arm.sidecar, run_id=run_id, started_utc=utc_now())
    host_hash = str(arm.rows_by_trial[0][0].get("host_hash") or "unknown0")
    with Store.create(folder, sidecar=sidecar, host_hash=host_hash) as store:
        for trial, rows in enumerate(arm.rows_by_trial):
            for row in rows:
                store.append({**row, "run_id": store.run_id, "trial": trial, "attempt": 1})
    return store.path
