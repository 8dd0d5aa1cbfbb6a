"""Comparing frames of rows: which verdict, why, and what the process ends with."""

from typing import Any

import pytest

from bench.analysis.comparison.comparison import Compared, Comparison, Strictness, compare
from bench.analysis.comparison.metrics import METRICS
from bench.analysis.comparison.verdicts import parse_threshold
from bench.core.errors import ExitCode, UsageError
from bench.results.schema import Row, Value
from tests.analysis.synthetic_rows import trials

THREE_PERCENT = Strictness(threshold_frac=0.03)
GPU: dict[str, Value] = {"device": "cuda:0", "device_type": "cuda", "device_name": "GPU X"}


def compared(
    *files: list[Row], metric: str = "time", strictness: Strictness = THREE_PERCENT
) -> Comparison:
    labelled = [(f"{'ABCD'[i]}.csv", rows) for i, rows in enumerate(files)]
    return compare(labelled, metric=METRICS[metric], strictness=strictness)


def at(*steps_ms: float, **cells: Value) -> list[Row]:
    """Trials with just these steps."""
    rows = trials(num=len(steps_ms), **cells)
    return [{**row, "step_median_ms": ms} for row, ms in zip(rows, steps_ms, strict=True)]


def only_row(comparison: Comparison) -> Compared:
    (row,) = comparison.rows
    return row


def test_ratio_by_hand() -> None:
    # 1, 2, 4 ms against 2, 4, 8 ms per step, two items a step: seconds per item double.
    row = only_row(compared(at(1.0, 2.0, 4.0), at(2.0, 4.0, 8.0)))
    assert (row.ratio, row.a.value) == pytest.approx((2.0, 2.0e-3 / 2))


def test_little_noise_and_no_change_is_the_same() -> None:
    found = compared(trials(seed=1, noise_frac=0.002), trials(seed=2, noise_frac=0.002))
    assert only_row(found).verdict == "SAME"


def test_inconclusive_says_how_many_more_trials_and_exits_3_only_under_strict() -> None:
    found = compared(
        trials(seed=1, noise_frac=0.03), trials(seed=2, noise_frac=0.03, step_ms=107.0)
    )
    row = only_row(found)
    assert row.verdict == "INCONCLUSIVE"
    assert row.more_trials is not None and row.more_trials >= 1
    assert found.exit_code(is_strict=False) == ExitCode.OK
    assert found.exit_code(is_strict=True) == ExitCode.INCONCLUSIVE


@pytest.mark.parametrize(
    ("cells", "reason", "code", "strict_code"),
    [
        ({"num": 2}, "2 usable trials, needs 3", ExitCode.OK, ExitCode.INCONCLUSIVE),
        ({"num": 4, "status": "INVALID", "reasons": "foreign_cpu_heavy;drift"},
         "0 usable trials, needs 3 (4 invalid or failed: foreign_cpu_heavy, drift)",
         ExitCode.INVALID, ExitCode.INVALID),
    ],
)  # fmt: skip
def test_too_few_trials_are_not_compared_and_invalid_ones_exit_4(
    cells: dict[str, Any], reason: str, code: ExitCode, strict_code: ExitCode
) -> None:
    found = compared(trials(), trials(seed=2, step_ms=200.0, **cells))
    row = only_row(found)
    assert (row.verdict, row.reason) == ("NOT COMPARED", f"B.csv: {reason}")
    assert found.exit_code(is_strict=False) == code
    assert found.exit_code(is_strict=True) == strict_code


def test_each_trial_counts_once_by_its_first_usable_attempt() -> None:
    first = trials(seed=2)
    first[0] |= {"status": "INVALID", "step_median_ms": 900.0}
    again = {**first[0], "status": "OK", "attempt": 2, "step_median_ms": 100.0}
    third = {**again, "attempt": 3, "step_median_ms": 900.0}
    row = only_row(compared(trials(), [*first, third, again, *first]))
    assert (row.b.num, row.b.num_lost) == (5, 0)
    assert row.ratio == pytest.approx(1.0, abs=0.05)
    assert only_row(compared(trials(), trials(seed=2, status="WARN"))).b.num == 5


def test_slow_trials_stay_in() -> None:
    rows = trials(seed=2)
    rows[0]["step_median_ms"] = 400.0
    row = only_row(compared(trials(), rows))
    assert (row.b.num, row.verdict) == (5, "INCONCLUSIVE")


def test_a_trial_that_died_before_it_knew_its_device_belongs_to_its_run() -> None:
    gone: Row = {"device_name": None, "device_type": None, "throughput_per_s": None}
    lost: Row = {"status": "FAILED", "reasons": "crashed", "step_median_ms": None}
    dead = [{**row, **gone} for row in trials(num=1, trial=9, **lost)]
    found = compared(trials(), [*trials(seed=2, num=2), *dead])
    row = only_row(found)
    assert row.reason == "B.csv: 2 usable trials, needs 3 (1 invalid or failed: crashed)"
    assert found.unmatched == ()
    # A file with only crashes is no file of another device.
    found = compared(trials(), dead)
    assert only_row(found).is_cross_hardware is False
    assert found.exit_code(is_strict=False) == ExitCode.INVALID


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
    assert found.rows == ()
    assert [entry.reason for entry in found.unmatched if entry.file == "A.csv"] == [reason]
    assert len(found.unmatched) == 2
    assert found.exit_code(is_strict=False) == ExitCode.NOTHING_MATCHED


@pytest.mark.parametrize(
    ("cells", "num", "reason"),
    [
        ({"energy_per_item_j": None}, 5, "not measured in B.csv"),
        ({"energy_scope": "module"}, 5, "measured in different ways"),
        # One trial that was measured in another way makes the group mixed.
        ({"energy_source": "integrated"}, 1, "measured in different ways"),
    ],
)
def test_energy_of_another_kind_is_not_compared(
    cells: dict[str, Value], num: int, reason: str
) -> None:
    own: dict[str, Value] = {
        "energy_per_item_j": 1.0,
        "energy_source": "counter",
        "energy_scope": "gpu",
    }
    after = trials(seed=2, **own)
    after[:num] = [{**row, **cells} for row in after[:num]]
    found = compared(trials(**own), after, metric="energy")
    assert only_row(found).verdict == "NOT COMPARED"
    assert only_row(found).reason.startswith(reason)
    if only_row(found).ratio is None:
        assert found.exit_code(is_strict=False) == ExitCode.NOTHING_MATCHED


def test_the_first_source_that_both_have_is_compared() -> None:
    memory = [trials(seed=one, rss_peak_bytes=one * 10**9) for one in (1, 2)]
    row = only_row(compared(*memory, metric="memory"))
    assert row.source == "peak resident memory of the process"
    assert (row.ratio, row.low, row.high) == pytest.approx((2.0, 2.0, 2.0))
    assert row.verdict == "REGRESSION"
    before = trials(lat_p99_ms=20.0, lat_p90_ms=10.0, lat_p50_ms=5.0)
    after = trials(lat_p90_ms=10.0, lat_p50_ms=5.0)
    assert only_row(compared(before, after, metric="latency")).source == "p90 latency"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({}, 0.10),
        (GPU, 0.05),
        ({**GPU, "sm_clock_min_hz": 1.49e9, "sm_clock_mean_hz": 1.5e9}, 0.03),
        ({**GPU, "sm_clock_min_hz": 1.2e9, "sm_clock_mean_hz": 1.5e9}, 0.05),
    ],
)
def test_default_threshold_depends_on_the_device(cells: dict[str, Value], expected: float) -> None:
    found = compared(trials(**cells), trials(seed=2, **cells), strictness=Strictness())
    assert only_row(found).threshold_frac == expected


def test_twice_the_noise_floor_raises_the_threshold() -> None:
    floors = {("imaging-train", "c0ffee", "Test CPU"): 0.08}
    strictness = Strictness(threshold_frac=0.03, noise_floors=floors)
    row = only_row(compared(trials(seed=1), trials(seed=2, step_ms=112.0), strictness=strictness))
    assert (row.threshold_frac, row.verdict) == (pytest.approx(0.16), "SAME")


def test_different_devices_give_a_ratio_and_no_verdict_unless_forced() -> None:
    cells = {**GPU, "energy_per_item_j": 1.0, "roof_frac": 0.5, "torch_version": "2.14"}
    files = trials(energy_per_item_j=4.0), trials(seed=2, step_ms=10.0, **cells)
    row = only_row(compared(*files))
    assert row.is_cross_hardware and row.verdict == ""
    assert row.ratio == pytest.approx(0.1, rel=0.1)
    assert row.energy_ratio == pytest.approx(0.25)
    assert (row.a.roof_frac, row.b.roof_frac) == (None, pytest.approx(0.5))
    assert row.confounders == ("torch_version 2.13.0 -> 2.14",)
    assert compared(*files).exit_code(is_strict=True) == ExitCode.OK
    forced = compared(*files, strictness=Strictness(force_gate=True))
    assert only_row(forced).verdict == "IMPROVED"


def test_the_same_device_comes_first_and_the_other_one_is_listed() -> None:
    found = compared(trials(), [*trials(seed=2), *trials(seed=3, **GPU)])
    assert not only_row(found).is_cross_hardware
    assert [entry.reason for entry in found.unmatched] == ["A.csv has it, but not on GPU X"]


def test_emulated_rows_never_meet_real_ones() -> None:
    emulated: dict[str, Value] = {"mode": "emulated", "link": "pcie4"}
    found = compared([*trials(), *trials(seed=3, **emulated)], trials(seed=2, **emulated))
    assert only_row(found).a.trials.mode == "emulated"
    assert len(found.unmatched) == 1


def test_geometric_mean_counts_valid_pairs_only() -> None:
    def file(seed: int, factor: float) -> list[Row]:
        return [
            *trials(seed=seed, noise_frac=0.0, step_ms=10.0 * factor, config_hash="one"),
            *trials(seed=seed, noise_frac=0.0, step_ms=10.0 * factor**2, config_hash="two"),
            *trials(seed=seed, num=2, config_hash="few"),
        ]

    (mean,) = compared(file(1, 1.0), file(2, 2.0)).means
    assert mean.num == 2
    assert mean.ratio == pytest.approx(2.0**1.5)


def test_a_lone_small_excess_among_many_rows_is_not_an_alarm() -> None:
    def file(seed: int, ratio: float) -> list[Row]:
        rows = [
            row for i in range(60)
            for row in trials(seed=seed + 2 * i, noise_frac=0.005, config_hash=f"h{i}")
        ]  # fmt: skip
        cells = at(*(ms * ratio for ms in (95.0, 100.0, 105.0)), config_hash="lone")
        return [*rows, *cells]

    alone = compared(file(1, 1.0)[-3:], file(2, 1.18)[-3:])
    among = compared(file(1, 1.0), file(2, 1.18))
    assert only_row(alone).verdict == "REGRESSION"
    lone = next(row for row in among.rows if row.config_hash == "lone")
    assert lone.verdict == "INCONCLUSIVE"
    assert lone.reason == "beyond the threshold alone, but not among so many comparisons"


def test_threshold_must_be_a_percentage() -> None:
    assert parse_threshold("2.5 %") == pytest.approx(0.025)
    for text in ("5", "0.05", "x%", "0%", "-3%", "5000%", ""):
        with pytest.raises(UsageError, match="percentage"):
            parse_threshold(text)
