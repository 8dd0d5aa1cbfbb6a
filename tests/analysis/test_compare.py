"""Comparing frames of rows: which verdict, why, and what the process ends with; noise floors."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.comparison.comparison import Compared, Comparison, Strictness, compare
from bench.analysis.comparison.noise_floors import (
    NoiseFloor,
    floors_by_key,
    load_floors,
    measure_noise,
    save_floors,
)
from bench.analysis.comparison.verdicts import METRICS, parse_threshold
from bench.core.errors import DataError, ExitCode, UsageError
from bench.results.schema import Row, Value
from tests.analysis.synthetic_rows import trials

THREE_PERCENT = Strictness(threshold_frac=0.03)
GPU: dict[str, Value] = {"device": "cuda:0", "device_type": "cuda", "device_name": "GPU X"}
NOW = "2026-01-02T03:04:05Z"


def compared(
    *files: list[Row], metric: str = "time", strictness: Strictness = THREE_PERCENT
) -> Comparison:
    labelled = [(f"{'ABCD'[i]}.csv", rows) for i, rows in enumerate(files)]
    return compare(labelled, metric=METRICS[metric], strictness=strictness)


def only_row(*files: list[Row], **how: Any) -> Compared:
    (row,) = compared(*files, **how).rows
    return row


def at(*steps_ms: float, **cells: Value) -> list[Row]:
    """Trials with just these steps."""
    rows = trials(num=len(steps_ms), **cells)
    return [{**row, "step_median_ms": ms} for row, ms in zip(rows, steps_ms, strict=True)]


def exits(found: Comparison) -> tuple[int, int]:
    """What the process ends with, and under --strict."""
    return found.exit_code(is_strict=False), found.exit_code(is_strict=True)


def test_a_ratio_is_the_same_or_open_and_strict_exits_3_where_it_is_open() -> None:
    # 1, 2, 4 ms against 2, 4, 8 ms per step, two items a step: seconds per item double.
    row = only_row(at(1.0, 2.0, 4.0), at(2.0, 4.0, 8.0))
    assert (row.ratio, row.a.value) == pytest.approx((2.0, 2.0e-3 / 2))
    calm = trials(seed=1, noise_frac=0.002), trials(seed=2, noise_frac=0.002)
    assert only_row(*calm).verdict == "SAME"
    noisy = trials(seed=1, noise_frac=0.03), trials(seed=2, noise_frac=0.03, step_ms=107.0)
    found = compared(*noisy)
    assert found.rows[0].verdict == "INCONCLUSIVE" and (found.rows[0].more_trials or 0) >= 1
    assert exits(found) == (ExitCode.OK, ExitCode.INCONCLUSIVE)
    # A slow trial is not dropped.
    row = only_row(trials(), at(400.0, 100.0, 100.0, 101.0, 99.0))
    assert (row.b.num, row.verdict) == (5, "INCONCLUSIVE")


def test_each_trial_counts_once_and_one_that_died_early_belongs_to_its_run() -> None:
    first = trials(seed=2)
    first[0] |= {"status": "INVALID", "step_median_ms": 900.0}
    again = {**first[0], "status": "OK", "attempt": 2, "step_median_ms": 100.0}
    third = {**again, "attempt": 3, "step_median_ms": 900.0}
    row = only_row(trials(), [*first, third, again, *first])
    assert (row.b.num, row.b.num_lost, row.ratio) == (5, 0, pytest.approx(1.0, abs=0.05))
    assert only_row(trials(), trials(seed=2, status="WARN")).b.num == 5
    gone: Row = {"device_name": None, "device_type": None, "throughput_per_s": None}
    lost: Row = {"status": "FAILED", "reasons": "crashed", "step_median_ms": None}
    dead = [{**row, **gone} for row in trials(num=1, trial=9, **lost)]
    found = compared(trials(), [*trials(seed=2, num=2), *dead])
    reason = "B.csv: 2 usable trials, needs 3 (1 invalid or failed: crashed)"
    assert (found.rows[0].reason, found.unmatched) == (reason, ())
    # A file with only crashes is no file of another device.
    found = compared(trials(), dead)
    assert found.rows[0].is_cross_hardware is False
    assert exits(found)[0] == ExitCode.INVALID
    # Too few are not compared, and invalid ones exit 4.
    invalid = {"num": 4, "status": "INVALID", "reasons": "foreign_cpu_heavy;drift"}
    for cells, said, codes in (
        ({"num": 2}, "2 usable trials, needs 3", (ExitCode.OK, ExitCode.INCONCLUSIVE)),
        (invalid, "0 usable trials, needs 3 (4 invalid or failed: foreign_cpu_heavy, drift)",
         (ExitCode.INVALID, ExitCode.INVALID)),
    ):  # fmt: skip
        found = compared(trials(), trials(seed=2, step_ms=200.0, **cells))
        assert (found.rows[0].verdict, found.rows[0].reason) == ("NOT COMPARED", f"B.csv: {said}")
        assert exits(found) == codes


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"workload_version": "2-def"}, "workload_version is 1-abc, in B.csv 2-def"),
        ({"dtype": "bf16"}, "dtype is fp32, in B.csv bf16"),
        ({"mode": "emulated", "link": "pcie4"}, "mode is real, in B.csv emulated; "
         "link is blank, in B.csv pcie4"),
        ({"params_json": '{"batch": 2, "patch": 64}', "config_hash": "x"},
         "patch is 32, in B.csv 64"),
        ({"config_hash": "x"}, "the configuration differs in something that has no column "
         "(config_hash)"),
        ({"workload": "llm-train"}, "B.csv has no imaging-train"),
    ],
)  # fmt: skip
def test_unlike_rows_are_listed_with_the_reason(cells: dict[str, Value], reason: str) -> None:
    found = compared(trials(), trials(seed=2, **cells))
    assert found.rows == () and exits(found)[0] == ExitCode.NOTHING_MATCHED
    assert [entry.reason for entry in found.unmatched if entry.file == "A.csv"] == [reason]
    assert len(found.unmatched) == 2


def test_the_first_source_of_both_counts_and_a_threshold_is_no_less_than_twice_the_noise() -> None:
    memory = [trials(seed=one, rss_peak_bytes=one * 10**9) for one in (1, 2)]
    row = only_row(*memory, metric="memory")
    assert row.source == "peak resident memory of the process"
    assert (row.ratio, row.low, row.high) == pytest.approx((2.0, 2.0, 2.0))
    assert row.verdict == "REGRESSION"
    before = trials(lat_p99_ms=20.0, lat_p90_ms=10.0, lat_p50_ms=5.0)
    row = only_row(before, trials(lat_p90_ms=10.0, lat_p50_ms=5.0), metric="latency")
    assert (row.source, row.a.value) == ("p90 latency", pytest.approx(0.01))
    # Energy of another kind is not; one trial that was measured in another way makes it mixed.
    own: Row = {"energy_per_item_j": 1.0, "energy_source": "counter", "energy_scope": "gpu"}
    for cells, num, reason, code in (
        ({"energy_per_item_j": None}, 5, "not measured in B.csv", ExitCode.NOTHING_MATCHED),
        ({"energy_source": "integrated"}, 1, "measured in different ways", ExitCode.OK),
        ({"energy_scope": "module"}, 5, "measured in different ways", ExitCode.OK),
        ({"items_unit": "volume"}, 5, "measured in different ways", ExitCode.OK),
    ):
        after = trials(seed=2, **own)
        after[:num] = [{**row, **cells} for row in after[:num]]
        found = compared(trials(**own), after, metric="energy")
        assert found.rows[0].verdict == "NOT COMPARED" and exits(found)[0] == code
        assert found.rows[0].reason.startswith(reason)
    assert parse_threshold("2.5 %") == pytest.approx(0.025)
    for text in ("5", "0.05", "x%", "0%", "-3%", "5000%", ""):
        with pytest.raises(UsageError, match="percentage"):
            parse_threshold(text)
    floors = {("imaging-train", "c0ffee", "Test CPU"): 0.08}
    strictness = Strictness(threshold_frac=0.03, noise_floors=floors)
    row = only_row(trials(seed=1), trials(seed=2, step_ms=112.0), strictness=strictness)
    assert (row.threshold_frac, row.verdict) == (pytest.approx(0.16), "SAME")
    # The default depends on the device, and on whether its clock held.
    clock = {**GPU, "sm_clock_mean_hz": 1.5e9}
    held, moved = ({**clock, "sm_clock_min_hz": low} for low in (1.49e9, 1.2e9))
    for cells, expected in (({}, 0.10), (GPU, 0.05), (held, 0.03), (moved, 0.05)):
        row = only_row(trials(**cells), trials(seed=2, **cells), strictness=Strictness())
        assert row.threshold_frac == expected


def test_different_devices_give_a_ratio_alone_and_emulated_rows_never_meet_real_ones() -> None:
    cells = {**GPU, "energy_per_item_j": 1.0, "roof_frac": 0.5, "torch_version": "2.14"}
    files = trials(energy_per_item_j=4.0), trials(seed=2, step_ms=10.0, **cells)
    row = only_row(*files)
    assert row.is_cross_hardware and row.verdict == ""
    assert (row.ratio, row.energy_ratio) == (pytest.approx(0.1, rel=0.1), pytest.approx(0.25))
    assert (row.a.roof_frac, row.b.roof_frac) == (None, pytest.approx(0.5))
    assert row.confounders == ("torch_version 2.13.0 -> 2.14",)
    assert exits(compared(*files))[1] == ExitCode.INCONCLUSIVE
    assert only_row(*files, strictness=Strictness(force_gate=True)).verdict == "IMPROVED"
    # The same device comes first.
    found = compared(trials(), [*trials(seed=2), *trials(seed=3, **GPU)])
    assert [row.is_cross_hardware for row in found.rows] == [False]
    assert [entry.reason for entry in found.unmatched] == ["A.csv has it, but not on GPU X"]
    emulated: dict[str, Value] = {"mode": "emulated", "link": "pcie4"}
    found = compared([*trials(), *trials(seed=3, **emulated)], trials(seed=2, **emulated))
    assert [row.a.trials.mode for row in found.rows] == ["emulated"]
    assert len(found.unmatched) == 1


def test_the_mean_counts_valid_pairs_only_and_a_lone_small_excess_is_not_an_alarm() -> None:
    def file(seed: int, factor: float) -> list[Row]:
        return [
            *trials(seed=seed, noise_frac=0.0, step_ms=10.0 * factor, config_hash="one"),
            *trials(seed=seed, noise_frac=0.0, step_ms=10.0 * factor**2, config_hash="two"),
            *trials(seed=seed, num=2, config_hash="few"),
        ]

    (mean,) = compared(file(1, 1.0), file(2, 2.0)).means
    assert (mean.num, mean.ratio) == (2, pytest.approx(2.0**1.5))

    def many(seed: int, ratio: float) -> list[Row]:
        rows = at(*(ms * ratio for ms in (95.0, 100.0, 105.0)), config_hash="lone")
        for i in range(60):
            rows += trials(seed=seed + 2 * i, noise_frac=0.005, config_hash=f"h{i}")
        return rows

    assert only_row(many(1, 1.0)[:3], many(2, 1.18)[:3]).verdict == "REGRESSION"
    lone = compared(many(1, 1.0), many(2, 1.18)).rows[0]
    assert (lone.a.trials.text("config_hash"), lone.verdict) == ("lone", "INCONCLUSIVE")
    assert lone.reason == "beyond the threshold alone, but not among so many comparisons"


def a_floor(value: float, *, config_hash: str = "c0ffee") -> NoiseFloor:
    where = {"workload": "imaging-train", "config_hash": config_hash, "device_name": "Test CPU"}
    return NoiseFloor(**where, floor_frac=value, ratio=1.0, num_trials=5, measured_utc=NOW)


def test_a_noise_floor_by_hand_and_the_newest_of_a_kind_is_kept(tmp_path: Path) -> None:
    a = at(99.0, 100.0, 101.0)
    (floor,) = measure_noise(a, a, measured_utc=NOW)
    # Spread of the logs is .01, so the error of their difference is .01 sqrt(2 / 3).
    assert floor.floor_frac == pytest.approx(0.01 * math.sqrt(2 / 3), rel=0.01)
    assert floor.ratio == pytest.approx(1.0)
    a, b = trials(seed=1, noise_frac=0.001), trials(seed=2, noise_frac=0.001, step_ms=108.0)
    (floor,) = measure_noise(a, b, measured_utc=NOW)
    assert floor.floor_frac == pytest.approx(0.08, abs=0.005)
    assert measure_noise(a[:2], a[:2], measured_utc=NOW) == [], "too few trials"
    path = tmp_path / "new" / "noise.json"
    assert load_floors(path) == []
    save_floors(path, floors=[a_floor(0.01), a_floor(0.02, config_hash="other")])
    save_floors(path, floors=[a_floor(0.05)])
    assert floors_by_key(path) == {
        ("imaging-train", "c0ffee", "Test CPU"): 0.05,
        ("imaging-train", "other", "Test CPU"): 0.02,
    }
    assert [p.name for p in path.parent.iterdir()] == ["noise.json"]
    odd = {**asdict(a_floor(0.1)), "floor_frac": "much"}
    for text in ("", "[]", '{"version": 2, "floors": []}', '{"version": 1, "floors": [1]}',
                 json.dumps({"version": 1, "floors": [odd]})):  # fmt: skip
        path.write_text(text)
        with pytest.raises(DataError, match="bench calibrate"):
            load_floors(path)
