"""When trials end and how long their windows are: by hand, and over many simulated runs."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_process import fake_run, rows_in

from bench.core.statistics import mean_interval_log
from bench.measure.timing.limits import Limits
from bench.results.schema import Row
from bench.run import stopping
from bench.run.planning.plan import Plan
from bench.run.planning.request import RunRequest
from bench.run.session import prepare

STARTING_S = 5.0
SPREADS = [
    # Between processes, and of a second's mean within one.
    (0.0005, 0.0005), (0.001, 0.005), (0.003, 0.002), (0.006, 0.01), (0.01, 0.002), (0.01, 0.03),
    (0.015, 0.01), (0.02, 0.005), (0.025, 0.03), (0.03, 0.002), (0.05, 0.05), (0.0, 0.02),
    (0.0, 0.05),
]  # fmt: skip


@pytest.fixture(scope="module")
def plan() -> Plan:
    return prepare(RunRequest(workloads=("sleep-infer",), device="fake"), note=lambda _: None)[0]


def is_precise(rows: list[Row], *, plan: Plan) -> bool:
    return stopping.is_precise(rows, target_half_width_frac=plan.target_half_width_frac)


def next_limits(rows: list[Row], *, plan: Plan) -> Limits:
    names = ("limits", "min_trials", "max_trials", "target_half_width_frac")
    return stopping.next_limits(rows, **{name: getattr(plan, name) for name in names})


def row(median_ms: float, *, window_s: float = 3.0, half_width_frac: float = 0.001) -> Row:
    cold: Row = {"warmup_s": STARTING_S - 1.0, "import_s": 1.0, "build_s": None}
    seen: Row = {"step_median_ms": median_ms, "window_s": window_s}
    return {**seen, "rel_ci95_frac": half_width_frac, **cold}


def rows(*medians_ms: float, **more: Any) -> list[Row]:
    return [row(median_ms, **more) for median_ms in medians_ms]


def test_three_trials_are_enough_only_where_they_agree_closely(plan: Plan) -> None:
    # Half widths: t(2) 4.303 x 0.1 % / sqrt(3) = 0.25 %; of 0.3 % three times as much.
    assert is_precise(rows(99.9, 100.0, 100.1), plan=plan)
    assert not is_precise(rows(99.7, 100.0, 100.3), plan=plan)
    # t(3) 3.182 x 1 % / 2 = 1.6 %; of 1.5 % it is 2.4 %.
    assert is_precise(rows(99.0, 99.3, 100.7, 101.0), plan=plan)
    assert not is_precise(rows(98.5, 98.9, 101.1, 101.5), plan=plan)
    assert not is_precise(rows(100.0, 100.0), plan=plan)
    assert not is_precise([{"status": "OK"}] * 4, plan=plan)


def test_window_grows_only_where_steps_are_what_differs(plan: Plan) -> None:
    def window_s(*medians_ms: float, **more: Any) -> float:
        limits = next_limits(rows(*medians_ms, **more), plan=plan)
        chosen_s = limits.window_min_s
        assert limits == replace(plan.limits, window_min_s=chosen_s, window_max_s=chosen_s)
        return chosen_s

    assert next_limits([], plan=plan) == next_limits(rows(100.0), plan=plan) == plan.limits
    assert next_limits([{"step_median_ms": 1.0}] * 3, plan=plan) == plan.limits
    low_s, high_s = plan.limits.window_min_s, plan.limits.window_max_s
    assert window_s(100.0, 100.2) == low_s, "all is precise as it is"
    assert window_s(90.0, 110.0, half_width_frac=0.001) == low_s, "processes differ: more of them"
    # No number of trials suffices at 3 s: the longest window, as nothing differs but steps.
    assert window_s(100.0, 100.1, half_width_frac=0.2) == high_s
    # Only steps differ, with (2 % / 2)^2 x 3 s = 3e-4 s. Each of four trials may differ by
    # 4 x (2 % / 3.182)^2 = 1.58e-4, which takes 1.9 s.
    assert window_s(100.0, 100.1, half_width_frac=0.02) == low_s
    # With 3 % it is 6.75e-4 s: 4.27 s in each of four trials. Five need 2.1 s, but another start.
    expected_s = 6.75e-4 / (4 * (0.02 / 3.18245) ** 2)
    assert window_s(100.0, 100.1, half_width_frac=0.03) == pytest.approx(expected_s, rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_run_ends_with_the_first_trial_that_makes_it_precise(
    plan: Plan, tmp_path: Path, seed: int
) -> None:
    code, _, _ = fake_run("-w", "sleep-infer", "--seed", str(seed), out=tmp_path)
    found = rows_in(tmp_path)
    assert code == 0
    assert [is_precise(found[:count], plan=plan) for count in range(3, len(found))].count(True) == 0
    assert len(found) == 5 or is_precise(found, plan=plan)
    windows_s = [float(one["window_s"] or 0) for one in found]
    for count, window_s in enumerate(windows_s):
        limits = next_limits(found[:count], plan=plan)
        assert limits.window_min_s <= window_s < limits.window_max_s + 0.6


class Machine:
    """Trials whose medians differ by the two spreads, around 100 ms."""

    def __init__(self, between_sd: float, within_sd: float, *, seed: int) -> None:
        self.between_sd, self.within_sd = between_sd, within_sd
        self.random = random.Random(seed)

    def trial(self, plan: Plan, before: list[Row]) -> Row:
        """Do what a trial does with its limits: extend the window until its mean is known."""
        limits = next_limits(before, plan=plan)
        # What the batches show of the window's spread is itself not sure.
        seen_sd = self.within_sd * math.sqrt(self.random.gammavariate(10.0, 0.1))
        wanted_s = (2.09 * seen_sd / limits.target_half_width_frac) ** 2
        window_s = min(max(limits.window_min_s, wanted_s), limits.window_max_s)
        sd = math.hypot(self.between_sd, self.within_sd / math.sqrt(window_s))
        median_ms = 100.0 * math.exp(self.random.gauss(0.0, sd))
        return row(median_ms, window_s=window_s, half_width_frac=2.09 * seen_sd / window_s**0.5)

    def run(self, plan: Plan) -> list[Row]:
        found: list[Row] = []
        for number in range(plan.max_trials):
            if number >= plan.min_trials and is_precise(found, plan=plan):
                break
            found.append(self.trial(plan, found))
        return found


def covered_frac(machine: Machine, plan: Plan, *, num: int) -> float:
    hits = 0
    for _ in range(num):
        medians_ms = [float(one["step_median_ms"] or 0) for one in machine.run(plan)]
        interval = mean_interval_log(medians_ms)
        assert interval is not None
        hits += interval[1] <= 100.0 <= interval[2]
    return hits / num


@pytest.mark.parametrize(("between_sd", "within_sd"), SPREADS)
def test_intervals_cover_the_truth_though_trials_end_when_they_are_precise(
    plan: Plan, between_sd: float, within_sd: float
) -> None:
    num = 1500
    error = math.sqrt(0.95 * 0.05 / num)
    covered = covered_frac(Machine(between_sd, within_sd, seed=1), plan, num=num)
    assert 0.93 - 3 * error <= covered <= 0.97 + 3 * error


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["default", "rigorous"])
def test_coverage_is_93_to_97_percent_over_the_whole_range(plan: Plan, profile: str) -> None:
    request = RunRequest(workloads=("sleep-infer",), device="fake", profile=profile)
    plan, _ = prepare(request, note=lambda _: None)
    for between_sd, within_sd in SPREADS:
        covered = covered_frac(Machine(between_sd, within_sd, seed=2), plan, num=40_000)
        print(f"{profile} {between_sd:.2%} {within_sd:.2%}: {covered:.2%}")
        assert 0.93 <= covered <= 0.97, (between_sd, within_sd)
