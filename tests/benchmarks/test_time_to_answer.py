"""How long `bench run` takes to know a step to its half width, against an earlier tree.

Run with `BEFORE=/path/to/earlier/tree pytest tests/benchmarks/test_time_to_answer.py
--benchmark-enable -s`, on a machine that does nothing else. Both trees run whole commands in turn,
A B B A, each with the cache of its own. Time is of the whole command; the half width is that of the
interval over its usable trials. Runs end at different half widths, so that the time of a trial
times the variance between trials is given as well: the time for the same half width goes with it.
"""

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.core.statistics import mean_interval_log
from bench.results.reader import read_rows
from bench.results.schema import USABLE, Row

ROOT = Path(__file__).resolve().parents[2]
QUICK_S = 12.0
ROOF_S = 10.0

pytestmark = pytest.mark.timeout(3600)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One command and its rows."""

    took_s: float
    rows: list[Row]

    @property
    def logs(self) -> list[float]:
        usable = [row for row in self.rows if row["status"] in USABLE]
        return [math.log(float(row["step_median_ms"] or 0)) for row in usable]

    @property
    def half_width_frac(self) -> float:
        interval = mean_interval_log([math.exp(one) for one in self.logs])
        return math.nan if interval is None else (interval[2] - interval[1]) / 2 / interval[0]

    def __str__(self) -> str:
        spoilt = len(self.rows) - len(self.logs)
        return (
            f"{self.took_s:.1f} s, +-{self.half_width_frac:.2%}, {len(self.logs)} trials"
            + f", {spoilt} not usable" * bool(spoilt)
        )


def ran(*flags: str, tree: Path, out: Path) -> Ran:
    environment = {**os.environ, "PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(out / "cache")}
    command = [sys.executable, "-m", "bench", "run", *flags, "--size", "tiny", "--quiet"]
    started_s = time.monotonic()
    done = subprocess.run(
        [*command, "--out", str(out)],
        capture_output=True, text=True, env=environment, cwd=tree, check=False,
    )  # fmt: skip
    took_s = time.monotonic() - started_s
    lines = done.stdout.split()
    assert lines, done.stderr
    return Ran(took_s=took_s, rows=read_rows(Path(lines[-1])))


def in_turn(*flags: str, folder: Path, rounds: int) -> Iterator[tuple[str, Ran]]:
    trees = {"before": Path(os.environ["BEFORE"]), "after": ROOT}
    for name, tree in trees.items():
        (folder / name).mkdir()
        ran(*flags, "--profile", "quick", tree=tree, out=folder / name)  # the roof, and page caches
    for number in range(2 * rounds):
        for name in ("before", "after") if number % 2 == 0 else ("after", "before"):
            load = os.getloadavg()[0]
            found = ran(*flags, tree=trees[name], out=folder / name)
            print(f"{flags[1]} {name}: {found}; load {load:.1f}")
            yield name, found


def spread(runs: list[Ran]) -> float:
    """Standard deviation between the trials of one command, pooled over commands."""
    several = [run.logs for run in runs if len(run.logs) > 1]
    squares = sum(statistics.variance(logs) * (len(logs) - 1) for logs in several)
    return math.sqrt(squares / sum(len(logs) - 1 for logs in several))


@pytest.mark.skipif("BEFORE" not in os.environ, reason="BEFORE names an earlier tree")
@pytest.mark.parametrize("name", ["imaging-train", "llm-train"])
def test_the_same_half_width_in_half_the_time(name: str, tmp_path: Path) -> None:
    runs: dict[str, list[Ran]] = {"before": [], "after": []}
    for side, found in in_turn("--workload", name, folder=tmp_path, rounds=2):
        runs[side].append(found)
    cost = {}
    for side, several in runs.items():
        took_s = statistics.fmean(run.took_s for run in several)
        trial_s = sum(run.took_s for run in several) / sum(len(run.rows) for run in several)
        cost[side] = trial_s * spread(several) ** 2
        half_width = statistics.fmean(run.half_width_frac for run in several)
        print(f"{name} {side}: {took_s:.1f} s, +-{half_width:.2%}; a trial {trial_s:.1f} s, "
              f"spread {spread(several):.2%}")  # fmt: skip
    took = [statistics.fmean(run.took_s for run in runs[side]) for side in ("after", "before")]
    print(f"{name}: time {took[0] / took[1]:.2f}, "
          f"for the same half width {cost['after'] / cost['before']:.2f}")  # fmt: skip
    assert took[0] <= 0.5 * took[1]


@pytest.mark.parametrize("name", ["sleep-infer", "llm-train", "imaging-train"])
def test_a_quick_answer_takes_seconds(name: str, tmp_path: Path) -> None:
    first = ran("--workload", name, "--profile", "quick", tree=ROOT, out=tmp_path)
    then = [
        ran("--workload", name, "--profile", "quick", tree=ROOT, out=tmp_path) for _ in range(3)
    ]
    middle_s = statistics.median(run.took_s for run in then)
    print(f"{name} quick: {middle_s:.1f} s, the first {first.took_s:.1f} s")
    assert middle_s <= QUICK_S
    assert first.took_s - middle_s <= ROOF_S
