"""When trials end and how long their windows are: by hand, and over many simulated runs."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_process import fake_run, rows_in

from bench.core.statistics import mean_interval_log
from bench.measure.timing.limits import PROFILES, Profile
from bench.results.schema import Row
from bench.run.stopping import is_precise, next_limits

DEFAULT = PROFILES["default"]
STARTING_S = 5.0
LONG = [pytest.mark.slow, pytest.mark.timeout(900)]
SPREADS = [
    # Between processes, and of a second's mean within one.
    (0.0005, 0.0005), (0.001, 0.005), (0.003, 0.002), (0.006, 0.01), (0.01, 0.002), (0.01, 0.03),
    (0.015, 0.01), (0.02, 0.005), (0.025, 0.03), (0.03, 0.002), (0.05, 0.05), (0.0, 0.02),
    (0.0, 0.05),
]  # fmt: skip


def rows(*medians_ms: float, window_s: float = 3.0, half_width_frac: float = 0.001) -> list[Row]:
    cold: Row = {"warmup_s": STARTING_S - 1.0, "import_s": 1.0, "build_s": None}
    seen: Row = {**cold, "window_s": window_s, "rel_ci95_frac": half_width_frac}
    return [{**seen, "step_median_ms": median_ms} for median_ms in medians_ms]


def test_three_trials_are_enough_only_where_they_agree_closely() -> None:
    # Half widths: t(2) 4.303 x 0.1 % / sqrt(3) = 0.25 %; of 0.3 % three times as much.
    assert is_precise(rows(99.9, 100.0, 100.1), effort=DEFAULT)
    assert not is_precise(rows(99.7, 100.0, 100.3), effort=DEFAULT)
    # t(3) 3.182 x 1 % / 2 = 1.6 %; of 1.5 % it is 2.4 %.
    assert is_precise(rows(99.0, 99.3, 100.7, 101.0), effort=DEFAULT)
    assert not is_precise(rows(98.5, 98.9, 101.1, 101.5), effort=DEFAULT)
    assert not is_precise(rows(100.0, 100.0), effort=DEFAULT)
    assert not is_precise([{"status": "OK"}] * 4, effort=DEFAULT)
    # Of steps that are not alike the middle one is of one kind, however precise.
    means_ms = (98.5, 98.9, 101.1, 101.5)
    for kind in ({"item_sizes": "2 of 8; 1 of 64"}, {"mitigation": "diloco-16"}):
        unlike = [rows(100.0)[0] | kind | {"step_mean_ms": mean_ms} for mean_ms in means_ms]
        assert not is_precise(unlike, effort=DEFAULT), kind


def test_window_grows_only_where_steps_are_what_differs() -> None:
    def window_s(*medians_ms: float, **more: Any) -> float:
        limits = next_limits(rows(*medians_ms, **more), effort=DEFAULT)
        chosen_s = limits.window_min_s
        assert limits == replace(DEFAULT.limits, window_min_s=chosen_s, window_max_s=chosen_s)
        return chosen_s

    assert (
        next_limits([], effort=DEFAULT)
        == next_limits(rows(100.0), effort=DEFAULT)
        == DEFAULT.limits
    )
    assert next_limits([{"step_median_ms": 1.0}] * 3, effort=DEFAULT) == DEFAULT.limits
    low_s, high_s = DEFAULT.limits.window_min_s, DEFAULT.limits.window_max_s
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


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_ends_with_the_first_trial_that_makes_it_precise(tmp_path: Path, seed: int) -> None:
    code, _, _ = fake_run("-w", "sleep-infer", "--seed", str(seed), out=tmp_path)
    found = rows_in(tmp_path)
    assert code == 0
    assert not any(is_precise(found[:count], effort=DEFAULT) for count in range(3, len(found)))
    assert len(found) == DEFAULT.max_trials or is_precise(found, effort=DEFAULT)
    windows_s = [float(one["window_s"] or 0) for one in found]
    for count, window_s in enumerate(windows_s):
        limits = next_limits(found[:count], effort=DEFAULT)
        assert limits.window_min_s <= window_s < limits.window_max_s + 0.6


def run(effort: Profile, *, between_sd: float, within_sd: float, seed: int) -> list[float]:
    """Medians of trials that differ by the two spreads, around 100 ms."""
    chance = random.Random(seed)
    found: list[Row] = []
    while len(found) < effort.max_trials:
        if len(found) >= effort.min_trials and is_precise(found, effort=effort):
            break
        # What a trial does with its limits: extend the window until its mean is known.
        limits = next_limits(found, effort=effort)
        # What the batches show of the window's spread is itself not sure.
        seen_sd = within_sd * math.sqrt(chance.gammavariate(10.0, 0.1))
        wanted_s = (2.09 * seen_sd / limits.target_half_width_frac) ** 2
        window_s = min(max(limits.window_min_s, wanted_s), limits.window_max_s)
        sd = math.hypot(between_sd, within_sd / math.sqrt(window_s))
        median_ms = 100.0 * math.exp(chance.gauss(0.0, sd))
        half_width_frac = 2.09 * seen_sd / window_s**0.5
        found += rows(median_ms, window_s=window_s, half_width_frac=half_width_frac)
    return [float(one["step_median_ms"] or 0) for one in found]


@pytest.mark.parametrize(
    ("profile", "num"),
    [
        ("default", 1500),
        pytest.param("default", 40_000, marks=LONG),
        pytest.param("rigorous", 40_000, marks=LONG),
    ],
)
def test_intervals_cover_the_truth_though_trials_end_when_they_are_precise(
    profile: str, num: int
) -> None:
    slack = 3 * math.sqrt(0.95 * 0.05 / num) if num < 40_000 else 0.0
    for between_sd, within_sd in SPREADS:
        spreads = {"between_sd": between_sd, "within_sd": within_sd}
        runs = [run(PROFILES[profile], **spreads, seed=seed) for seed in range(num)]
        ends = [mean_interval_log(medians_ms) or (0.0, 0.0, 0.0) for medians_ms in runs]
        covered = sum(low <= 100.0 <= high for _, low, high in ends) / num
        print(f"{profile} {between_sd:.2%} {within_sd:.2%}: {covered:.2%}")
        assert 0.93 - slack <= covered <= 0.97 + slack, (between_sd, within_sd)
