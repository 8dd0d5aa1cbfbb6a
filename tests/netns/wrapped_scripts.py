"""Programs under `bench wrap`: as two real ranks over the shaped link, and as one of two emulated.

Both arms are planned and run as `bench wrap` does it, and a program takes its turns in each within
one round. A second process beside the emulated one gives the machine the load of two ranks.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.nouns import Config
from bench.measure.inspection import Inspection, inspect_device
from bench.measure.messages import ScriptFacts, TrialRequest, TrialResult
from bench.measure.timing.limits import Limits
from bench.results.schema import Row
from bench.run.launching.script import run_script
from bench.run.planning.request import RunRequest
from bench.run.planning.wrap_plan import WrapRequest, make_wrap_plan
from bench.run.wrap_session import look_at
from tests.netns.experiment import ShapedPair, link_text

HERE = Path(__file__).resolve().parent
SCRIPTS = {
    "plain loop, buckets of 64 KiB": ("plain_loop.py", "64"),
    "plain loop, buckets of 25 MiB": ("plain_loop.py", "25600"),
    "imaging net": ("segments.py",),
    "transformer, 4 backward passes": ("accumulates.py",),
}
SCRIPT_RATES_BITS_PER_S = (0.1e9, 0.5e9)
LIMITS = Limits(warmup_min_s=0.5, warmup_max_s=1.0, window_min_s=2.0, window_max_s=2.0)
TIMEOUT_S = 120.0


@dataclass(kw_only=True)
class ScriptPoint:
    """One program at one rate."""

    script: str
    bits_per_s: float
    rounds: dict[str, list[float]]
    """Median step of each round in seconds: real, emulated."""
    communication_s: float
    compute_s: float
    """Of the emulated step."""

    @property
    def is_dominated(self) -> bool:
        """Whether the link takes longer than compute."""
        return self.communication_s > self.compute_s

    def step_s(self, arm: str) -> float:
        """Median over the rounds."""
        return statistics.median(self.rounds[arm])

    @property
    def error(self) -> float:
        """Of the emulated step against the real one of its round, median over the rounds."""
        pairs = zip(self.rounds["emulated"], self.rounds["real"], strict=True)
        return statistics.median(emulated / real for emulated, real in pairs) - 1


def measure_scripts(
    pair: ShapedPair,
    *,
    links: Mapping[float, tuple[float, float]],
    rounds: int,
    rates: tuple[float, ...] = SCRIPT_RATES_BITS_PER_S,
) -> list[ScriptPoint]:
    """Run each program at each rate, so many rounds of both arms."""
    inspection = inspect_device("cpu", dtypes=("fp32",), with_roof=False, threads=(1,))
    points = []
    for script, words in SCRIPTS.items():
        over = {"links": tuple(link_text(links[rate]) for rate in rates), "devices": (2,)}
        run = RunRequest(mode="emulated", threads=1, **over)
        [real], emulated = (
            _configs(_command(names, words), run=asked, inspection=inspection)
            for names, asked in ((",".join(pair.names), RunRequest(threads=1)), ("-", run))
        )
        for rate, config in zip(rates, emulated, strict=True):
            pair.shape(rate)
            arms = {
                "real": (real, _command(",".join(pair.names), words)),
                "emulated": (config, _command("-", words)),
            }
            rows = {arm: [] for arm in arms}
            for number, (arm, asked) in itertools.product(range(rounds), arms.items()):
                rows[arm].append(_trial(*asked, number=number))
            points.append(_point(script, rate=rate, rows=rows))
    return points


def _command(names: str, words: tuple[str, ...]) -> tuple[str, ...]:
    program, *arguments = words
    path = str(HERE / "programs" / program)
    return (sys.executable, str(HERE / "two_ranks.py"), names, path, *arguments)


def _configs(command: tuple[str, ...], *, run: RunRequest, inspection: Inspection) -> list[Config]:
    request = WrapRequest(command=command, run=run)
    looked = look_at(request, on_message=lambda _: None)
    assert isinstance(looked.result, ScriptFacts), looked.detail
    plan = make_wrap_plan(request, facts=looked.result, inspection=inspection)
    return [planned.config for planned in plan.planned]


def _trial(config: Config, command: tuple[str, ...], *, number: int) -> Row:
    request = TrialRequest(
        config=config,
        limits=LIMITS,
        trial=number,
        cpu_ids=(),
        threads=1,
        workers=0,
        idle_s=0.0,
        command=command,
    )
    heard: Any = {"on_start": lambda _: None, "on_message": lambda _: None}
    outcome = run_script(request, timeout_s=TIMEOUT_S, **heard)
    assert isinstance(outcome.result, TrialResult), outcome.detail
    return outcome.result.row


def _point(script: str, *, rate: float, rows: Mapping[str, list[Row]]) -> ScriptPoint:
    def seconds(arm: str, column: str) -> list[float]:
        return [float(str(row[column])) / 1e3 for row in rows[arm]]

    return ScriptPoint(
        script=script,
        bits_per_s=rate,
        rounds={arm: seconds(arm, "step_median_ms") for arm in rows},
        communication_s=statistics.median(seconds("emulated", "comm_total_ms")),
        compute_s=statistics.median(seconds("emulated", "compute_step_ms")),
    )
