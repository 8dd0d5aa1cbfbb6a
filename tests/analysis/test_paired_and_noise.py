"""ABBA blocks and noise floors: hand-worked numbers, drift, and what is kept on disk."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.comparison.noise_floors import (
    NoiseFloor,
    floors_by_key,
    load_floors,
    measure_noise,
    save_floors,
)
from bench.analysis.comparison.verdicts import block_order, compare_arms
from bench.core.errors import DataError
from tests.analysis.synthetic_rows import trials

NOW = "2026-01-02T03:04:05Z"


def arm_trials(
    *, num_blocks: int, ratio: float, noise: float = 0.01, drift: float = 0.0, seed: int = 1
) -> list[tuple[str, int, float | None]]:
    source = np.random.default_rng(seed)
    found: list[tuple[str, int, float | None]] = []
    for place, arm in enumerate(block_order(num_blocks)):
        log = noise * source.standard_normal() + drift * place
        log += math.log(ratio) if arm == "B" else 0.0
        found.append((arm, place // 4, math.exp(log)))
    return found


def test_blocks_alternate_which_arm_is_outside() -> None:
    assert "".join(block_order(2)) == "ABBABAAB"


def test_block_difference_by_hand() -> None:
    # Three blocks with B/A of e^.1, e^.2, e^.3: mean .2, error .1/sqrt(3), t(2) = 4.302653.
    found = [
        (arm, block, math.exp(0.1 * (block + 1)) if arm == "B" else 1.0)
        for block in range(3)
        for arm in "ABBA"
    ]
    result = compare_arms(found, threshold_frac=0.03)
    assert result.ratio == pytest.approx(math.exp(0.2))
    assert result.low == pytest.approx(math.exp(0.2 - 4.302653 * 0.1 / math.sqrt(3)), rel=1e-6)
    assert result.verdict == "INCONCLUSIVE"


def test_steady_drift_does_not_become_a_difference() -> None:
    # Every trial is 5 % slower than the one before it; the arms are the same.
    result = compare_arms(
        arm_trials(num_blocks=6, ratio=1.0, drift=0.05, noise=0.002), threshold_frac=0.03
    )
    assert result.verdict == "SAME"
    assert result.ratio == pytest.approx(1.0, abs=0.005)


def test_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(1500):
        result = compare_arms(arm_trials(num_blocks=4, ratio=1.1, seed=seed), threshold_frac=0.03)
        covered += (result.low or 9.0) <= 1.1 <= (result.high or 0.0)
    assert 0.93 <= covered / 1500 <= 0.975


def test_a_block_that_lost_a_trial_is_left_out_and_counted() -> None:
    found = arm_trials(num_blocks=4, ratio=1.2)
    found[5] = (found[5][0], 1, None)
    result = compare_arms(found, threshold_frac=0.03)
    assert (result.num_blocks, result.num_left_out) == (3, 1)
    assert result.reason == "1 blocks lost a trial and are left out"
    result = compare_arms(found[:8], threshold_frac=0.03)
    assert (result.verdict, result.low, result.more_blocks) == ("NOT COMPARED", None, 2)
    assert result.ratio is not None and result.reason == "1 whole blocks, needs 3"


def test_noise_floor_is_the_larger_of_standard_error_and_difference() -> None:
    a = [{**row, "step_median_ms": 99.0 + place} for place, row in enumerate(trials(num=3))]
    (floor,) = measure_noise(a, a, measured_utc=NOW)
    # Spread of the logs is .01, so the error of their difference is .01 sqrt(2 / 3).
    assert floor.floor_frac == pytest.approx(0.01 * math.sqrt(2 / 3), rel=0.01)
    assert floor.ratio == pytest.approx(1.0)
    a, b = trials(seed=1, noise_frac=0.001), trials(seed=2, noise_frac=0.001, step_ms=108.0)
    (floor,) = measure_noise(a, b, measured_utc=NOW)
    assert floor.floor_frac == pytest.approx(0.08, abs=0.005)
    assert measure_noise(a[:2], a[:2], measured_utc=NOW) == [], "too few trials"


def a_floor(value: float, *, config_hash: str = "c0ffee") -> NoiseFloor:
    return NoiseFloor(
        workload="imaging-train",
        config_hash=config_hash,
        device_name="Test CPU",
        floor_frac=value,
        ratio=1.0,
        num_trials=5,
        measured_utc=NOW,
    )


def test_floors_are_kept_and_the_newest_of_a_kind_wins(tmp_path: Path) -> None:
    path = tmp_path / "new" / "noise.json"
    assert load_floors(path) == []
    save_floors(path, floors=[a_floor(0.01), a_floor(0.02, config_hash="other")])
    save_floors(path, floors=[a_floor(0.05)])
    assert floors_by_key(path) == {
        ("imaging-train", "c0ffee", "Test CPU"): 0.05,
        ("imaging-train", "other", "Test CPU"): 0.02,
    }
    assert [p.name for p in path.parent.iterdir()] == ["noise.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "floors": []}',
        '{"version": 1, "floors": [1]}',
        '{"version": 1, "floors": [{"workload": "x"}]}',
        json.dumps({"version": 1, "floors": [{**asdict(a_floor(0.1)), "floor_frac": "much"}]}),
    ],
)
def test_a_damaged_file_of_floors_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "noise.json"
    path.write_text(text)
    with pytest.raises(DataError, match="bench calibrate"):
        load_floors(path)
