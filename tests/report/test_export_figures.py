"""Names, selection and figures of exports: what other tools are reported, under which name."""

import math

import pytest

from bench.report.exports.exported_rows import select
from bench.report.exports.figures import configurations, name_of
from bench.results.schema import Row, Value
from tests.analysis.synthetic_rows import trials


def rows_at(*throughputs: float, **cells: Value) -> list[Row]:
    return [
        {**row, "throughput_per_s": value, "trial": trial, **cells}
        for trial, (row, value) in enumerate(
            zip(trials(num=len(throughputs)), throughputs, strict=True)
        )
    ]


def test_every_mode_is_part_of_the_name_with_its_link_and_a_name_is_printable() -> None:
    for mode in ("real", "throttled", "emulated", "simulated"):
        (row,) = trials(num=1, mode=mode, link="h800-nvlink", device_count=8, parallel="ddp")
        name = f"imaging-train tiny fp32 b2 [{mode}] x8 ddp over h800-nvlink on Test CPU #c0ffee"
        assert name_of(row) == name
    (row,) = trials(num=1, device_name="Evil\x1b[31m\nCPU")
    assert name_of(row).isprintable()


def test_what_differs_is_never_averaged_and_has_its_own_name_whatever_stands_beside() -> None:
    pairs: tuple[tuple[Row, Row], ...] = (
        ({"config_hash": "a"}, {"config_hash": "b"}),
        ({"link": "pcie4"}, {"link": "pcie5"}),
    )
    for one, other in pairs:
        rows = trials(num=1, **one) + trials(num=1, **other)
        assert len({found.name for found in configurations(rows)}) == 2, one
    alone = trials(num=2)
    sweep = trials(num=2, config_hash="deadbeef", params_json='{"batch": 4, "patch": 64}')
    assert configurations(alone)[0].name == configurations(alone + sweep)[0].name
    rows = trials(num=2, env_id="e1") + trials(num=2, env_id="e2", torch_version="2.11.0")
    first, second = configurations(rows)
    assert first.name.endswith("torch 2.13.0") and second.name.endswith("torch 2.11.0")
    assert len(first.trials.used) == len(second.trials.used) == 2
    rows = trials(num=1, device_type="cpu") + trials(num=1, device_type="cpu2")
    names = [one.name[-4:] for one in configurations(rows)]
    assert names == ["ffee", " (2)"], "names that nothing tells apart are numbered"


def test_figure_is_the_geometric_mean_with_its_t_interval() -> None:
    (one,) = configurations(rows_at(8.0, 2.0))
    figure = one.figures()[0]
    # log mean: ln 4; sd of logs: sqrt(2) ln 2; error: ln 2; t(0.975, 1) = 12.7062
    assert (figure.label, figure.unit, figure.num_trials) == ("throughput", "patch/s", 2)
    assert figure.value == pytest.approx(4.0)
    assert figure.ends == pytest.approx((4.0 / 2**12.7062, 4.0 * 2**12.7062), rel=1e-4)
    (figure, *_) = configurations(rows_at(7.3))[0].figures()
    assert (figure.value, figure.ends) == (7.3, None), "one trial has no interval"
    (figure, *_) = configurations(rows_at(1e9, 1e9, 1e9))[0].figures()
    assert (figure.value, figure.ends) == (1e9, (1e9, 1e9)), "equal trials, exactly"
    (figure, *_) = configurations(rows_at(1e-59, 1e59))[0].figures()
    assert figure.ends is None and figure.value == pytest.approx(1.0), "damaged, decades apart"
    for value in (0.0, -1.0, 1e300, math.nan, math.inf, None):
        rows = rows_at(5.0, 5.0)
        rows[1]["throughput_per_s"] = value
        figure = configurations(rows)[0].figures()[0]
        assert (figure.value, figure.num_trials) == (5.0, 1), value


def test_a_measure_is_left_out_where_no_trial_has_it_and_has_a_usable_key() -> None:
    keys = {figure.key for figure in configurations(trials())[0].figures()}
    assert keys == {"throughput_patch_per_s", "step_median_ms"}
    (one, *_) = configurations(trials(num=1, items_unit="a b/§" * 20))[0].figures()
    assert one.key == "throughput_a_b_a_b_a_b_a_b_a_b_a_b__per_s"
    (one, *_) = configurations(trials(num=1, items_unit=None))[0].figures()
    assert one.key == "throughput_item_per_s"


def test_only_ok_and_warn_are_used_and_the_others_are_told_with_reasons() -> None:
    rows = [
        *trials(num=2),
        *trials(num=1, status="WARN", reasons="drift", run_id="run2"),
        *trials(num=1, status="INVALID", reasons="ecc;thermal_throttle", run_id="run3"),
        *trials(num=1, status="FAILED", reasons="out_of_memory", run_id="run4"),
        *trials(num=1, status="SKIPPED", run_id="run5"),
    ]
    selection = select(rows)
    assert [row["status"] for row in selection.usable] == ["OK", "OK", "WARN"]
    assert selection.notes() == [
        "3 of 6 rows are not usable and give no figures: 1 INVALID (ecc, thermal_throttle), "
        "1 FAILED (out_of_memory), 1 SKIPPED"
    ]


def test_second_attempt_stands_for_the_first_and_a_file_given_twice_counts_once() -> None:
    first, *rest = trials(num=3)
    rows = [{**first, "status": "INVALID"}, *rest, {**first, "attempt": 2}]
    selection = select(rows)
    assert [(row["trial"], row["attempt"]) for row in selection.usable] == [(1, 1), (2, 1), (0, 2)]
    assert len(selection.unusable) == 1
    assert select(trials()).notes() == []
    selection = select(trials() + trials())
    assert len(selection.usable) == 5, "it does not look twice as certain"
    assert selection.notes() == ["5 rows were given more than once and count once"]
