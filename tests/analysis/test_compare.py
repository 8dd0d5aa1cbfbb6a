"""Comparing frames of rows: which verdict, why, and what the process ends with."""

from typing import TYPE_CHECKING

import pytest

from bench.analysis.comparison.compare_files import Strictness, compare
from bench.analysis.comparison.comparison import Compared, Comparison
from bench.analysis.comparison.metrics import METRICS
from bench.analysis.comparison.verdicts import parse_threshold
from bench.core.errors import ExitCode, UsageError
from tests.analysis.synthetic_rows import trials

if TYPE_CHECKING:
    from bench.results.schema import Row, Value

THREE_PERCENT = Strictness(threshold_frac=0.03)
GPU: "dict[str, Value]" = {"device": "cuda:0", "device_type": "cuda", "device_name": "GPU X"}


def compared(
    *files: "list[Row]", metric: str = "time", strictness: Strictness = THREE_PERCENT
) -> Comparison:
    labelled = [(f"{'ABCD'[i]}.csv", rows) for i, rows in enumerate(files)]
    return compare(labelled, metric=METRICS[metric], strictness=strictness)


def only_row(comparison: Comparison) -> Compared:
    assert len(comparison.rows) == 1
    return comparison.rows[0]


def test_ratio_by_hand() -> None:
    # 1, 2, 4 ms against 2, 4, 8 ms per step, two items a step: seconds per item double.
    before = [
        dict(row, step_median_ms=v) for row, v in zip(trials(num=3), (1.0, 2.0, 4.0), strict=True)
    ]
    after = [
        dict(row, step_median_ms=v) for row, v in zip(trials(num=3), (2.0, 4.0, 8.0), strict=True)
    ]
    row = only_row(compared(before, after))
    assert row.ratio == pytest.approx(2.0)
    assert row.a.value == pytest.approx(2.0e-3 / 2)


def test_little_noise_and_no_change_is_the_same() -> None:
    found = compared(trials(seed=1, noise_frac=0.002), trials(seed=2, noise_frac=0.002))
    assert only_row(found).verdict == "SAME"


def test_inconclusive_says_how_many_more_trials_and_exits_3_only_under_strict() -> None:
    found = compared(
        trials(seed=1, noise_frac=0.03), trials(seed=2, noise_frac=0.03, step_ms=107.0)
    )
    row = only_row(found)
    assert row.verdict == "INCONCLUSIVE"
    assert row.more_trials is not None
    assert row.more_trials >= 1
    assert found.exit_code(is_strict=False) == ExitCode.OK
    assert found.exit_code(is_strict=True) == ExitCode.INCONCLUSIVE


def test_two_trials_are_not_compared_and_never_gate() -> None:
    found = compared(trials(num=2), trials(seed=2, step_ms=200.0))
    row = only_row(found)
    assert row.verdict == "NOT COMPARED"
    assert row.reason == "A.csv: 2 usable trials, needs 3"
    assert found.exit_code(is_strict=False) == ExitCode.OK
    assert found.exit_code(is_strict=True) == ExitCode.INCONCLUSIVE


def test_warned_trials_count() -> None:
    assert only_row(compared(trials(), trials(seed=2, status="WARN"))).b.num == 5


def test_invalid_trials_are_not_used_and_exit_4_names_their_reason() -> None:
    bad = trials(seed=2, num=4, status="INVALID", reasons="foreign_cpu_heavy;drift")
    found = compared(trials(), bad)
    row = only_row(found)
    assert row.verdict == "NOT COMPARED"
    assert row.reason == (
        "B.csv: 0 usable trials, needs 3 (4 invalid or failed: foreign_cpu_heavy, drift)"
    )
    assert found.exit_code(is_strict=False) == ExitCode.INVALID


def test_second_attempt_replaces_an_invalid_trial() -> None:
    first = trials(seed=2, step_ms=100.0)
    first[0]["status"] = "INVALID"
    first[0]["step_median_ms"] = 900.0
    again = dict(first[0], status="OK", attempt=2, step_median_ms=100.0)
    row = only_row(compared(trials(), [*first, again]))
    assert (row.b.num, row.b.num_lost) == (5, 0)
    assert row.ratio == pytest.approx(1.0, abs=0.05)


def test_a_trial_written_twice_counts_once() -> None:
    rows = trials(seed=2)
    assert only_row(compared(trials(), [*rows, *rows])).b.num == 5


def test_slow_trials_stay_in() -> None:
    rows = trials(seed=2)
    rows[0]["step_median_ms"] = 400.0
    row = only_row(compared(trials(), rows))
    assert row.b.num == 5
    assert row.verdict == "INCONCLUSIVE"


def test_a_trial_that_died_before_it_knew_its_device_belongs_to_its_run() -> None:
    dead = trials(num=1, trial=9, status="FAILED", reasons="crashed", step_median_ms=None)
    dead[0] |= {"device_name": None, "device_type": None, "throughput_per_s": None}
    found = compared(trials(), [*trials(seed=2, num=2), *dead])
    row = only_row(found)
    assert row.reason == "B.csv: 2 usable trials, needs 3 (1 invalid or failed: crashed)"
    assert found.unmatched == ()


def test_a_file_with_only_crashes_is_matched_and_named() -> None:
    dead = trials(status="FAILED", reasons="crashed", step_median_ms=None, throughput_per_s=None)
    for row in dead:
        row |= {"device_name": None, "device_type": None}
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
def test_unlike_rows_are_listed_with_the_reason(cells: "dict[str, Value]", reason: str) -> None:
    found = compared(trials(), trials(seed=2, **cells))
    assert found.rows == ()
    assert [entry.reason for entry in found.unmatched if entry.file == "A.csv"] == [reason]
    assert len(found.unmatched) == 2
    assert found.exit_code(is_strict=False) == ExitCode.NOTHING_MATCHED


def test_missing_energy_is_not_compared() -> None:
    found = compared(trials(energy_per_item_j=1.0), trials(seed=2), metric="energy")
    assert only_row(found).reason == "not measured in B.csv"
    assert found.exit_code(is_strict=False) == ExitCode.NOTHING_MATCHED


def test_energy_of_different_scope_is_not_compared() -> None:
    found = compared(
        trials(energy_per_item_j=1.0, energy_scope="gpu"),
        trials(seed=2, energy_per_item_j=2.0, energy_scope="module"),
        metric="energy",
    )
    assert only_row(found).reason == "measured in different ways (unit, scope or source differ)"


def test_memory_falls_back_to_the_process_where_the_device_has_no_counter() -> None:
    found = compared(
        trials(rss_peak_bytes=10**9), trials(seed=2, rss_peak_bytes=2 * 10**9), metric="memory"
    )
    row = only_row(found)
    assert row.source == "peak resident memory of the process"
    assert (row.ratio, row.low, row.high) == pytest.approx((2.0, 2.0, 2.0))
    assert row.verdict == "REGRESSION"


def test_latency_takes_the_highest_percentile_that_both_have() -> None:
    found = compared(
        trials(lat_p99_ms=20.0, lat_p90_ms=10.0, lat_p50_ms=5.0),
        trials(lat_p90_ms=10.0, lat_p50_ms=5.0),
        metric="latency",
    )
    assert only_row(found).source == "p90 latency"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({}, 0.10),
        (GPU, 0.05),
        ({**GPU, "sm_clock_min_hz": 1.49e9, "sm_clock_mean_hz": 1.5e9}, 0.03),
        ({**GPU, "sm_clock_min_hz": 1.2e9, "sm_clock_mean_hz": 1.5e9}, 0.05),
    ],
)
def test_default_threshold_depends_on_the_device(
    cells: "dict[str, Value]", expected: float
) -> None:
    found = compared(trials(**cells), trials(seed=2, **cells), strictness=Strictness())
    assert only_row(found).threshold_frac == expected


def test_twice_the_noise_floor_raises_the_threshold() -> None:
    floors = {("imaging-train", "c0ffee", "Test CPU"): 0.08}
    strictness = Strictness(threshold_frac=0.03, noise_floors=floors)
    found = compared(trials(seed=1), trials(seed=2, step_ms=112.0), strictness=strictness)
    assert only_row(found).threshold_frac == pytest.approx(0.16)
    assert only_row(found).verdict == "SAME"


def test_different_devices_give_a_ratio_and_no_verdict_unless_forced() -> None:
    cells = {**GPU, "energy_per_item_j": 1.0, "roof_frac": 0.5, "torch_version": "2.14"}
    files = trials(energy_per_item_j=4.0), trials(seed=2, step_ms=10.0, **cells)
    row = only_row(compared(*files))
    assert row.is_cross_hardware
    assert row.verdict == ""
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
    def file(seed: int, factor: float) -> "list[Row]":
        return [
            *trials(seed=seed, noise_frac=0.0, step_ms=10.0 * factor, config_hash="one"),
            *trials(seed=seed, noise_frac=0.0, step_ms=10.0 * factor**2, config_hash="two"),
            *trials(seed=seed, num=2, config_hash="few"),
        ]

    (mean,) = compared(file(1, 1.0), file(2, 2.0)).means
    assert mean.num == 2
    assert mean.ratio == pytest.approx(2.0**1.5)


def test_a_lone_small_excess_among_many_rows_is_not_an_alarm() -> None:
    def file(seed: int, ratio: float) -> "list[Row]":
        rows = [
            row for i in range(60)
            for row in trials(seed=seed + 2 * i, noise_frac=0.005, config_hash=f"h{i}")
        ]  # fmt: skip
        values = (95.0, 100.0, 105.0)
        cells = [dict(row, step_median_ms=v * ratio) for row, v in
                 zip(trials(num=3, config_hash="lone"), values, strict=True)]  # fmt: skip
        return [*rows, *cells]

    alone = compared(file(1, 1.0)[-3:], file(2, 1.18)[-3:])
    among = compared(file(1, 1.0), file(2, 1.18))
    assert only_row(alone).verdict == "REGRESSION"
    lone = next(row for row in among.rows if row.config_hash == "lone")
    assert lone.verdict == "INCONCLUSIVE"
    assert lone.reason == "beyond the threshold alone, but not among so many comparisons"


@pytest.mark.parametrize("text", ["5", "0.05", "x%", "0%", "-3%", "5000%", ""])
def test_threshold_must_be_a_percentage(text: str) -> None:
    assert parse_threshold("2.5 %") == pytest.approx(0.025)
    with pytest.raises(UsageError, match="percentage"):
        parse_threshold(text)


def test_mixed_sources_within_one_group_do_not_match_a_single_one() -> None:
    mixed = trials(energy_per_item_j=1.0, energy_source="counter")
    mixed[0]["energy_source"] = "integrated"
    found = compared(
        mixed, trials(seed=2, energy_per_item_j=1.0, energy_source="counter"), metric="energy"
    )
    assert only_row(found).verdict == "NOT COMPARED"
