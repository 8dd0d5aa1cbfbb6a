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


@pytest.mark.parametrize("mode", ["real", "throttled", "emulated", "simulated"])
def test_every_mode_is_part_of_the_name_with_its_link(mode: str) -> None:
    (row,) = trials(num=1, mode=mode, link="h800-nvlink", device_count=8, parallel="ddp")
    name = f"imaging-train tiny fp32 b2 [{mode}] x8 ddp over h800-nvlink on Test CPU #c0ffee"
    assert name_of(row) == name


def test_name_does_not_depend_on_what_else_is_exported() -> None:
    alone = trials(num=2)
    sweep = trials(num=2, config_hash="deadbeef", params_json='{"batch": 4, "patch": 64}')
    assert configurations(alone)[0].name == configurations(alone + sweep)[0].name


@pytest.mark.parametrize(
    ("one", "other"),
    [({"config_hash": "a"}, {"config_hash": "b"}), ({"link": "pcie4"}, {"link": "pcie5"})],
)
def test_what_differs_is_never_averaged_and_has_its_own_name(
    one: dict[str, Value], other: dict[str, Value]
) -> None:
    rows = trials(num=1, **one) + trials(num=1, **other)
    assert len({found.name for found in configurations(rows)}) == 2


def test_one_configuration_in_two_environments_is_two_and_names_say_why() -> None:
    rows = trials(num=2, env_id="e1") + trials(num=2, env_id="e2", torch_version="2.11.0")
    first, second = configurations(rows)
    assert first.name.endswith("torch 2.13.0")
    assert second.name.endswith("torch 2.11.0")
    assert len(first.trials.used) == len(second.trials.used) == 2


def test_names_that_nothing_tells_apart_are_numbered() -> None:
    rows = trials(num=1, device_type="cpu") + trials(num=1, device_type="cpu2")
    assert [one.name[-4:] for one in configurations(rows)] == ["ffee", " (2)"]


def test_control_characters_do_not_reach_a_name() -> None:
    (row,) = trials(num=1, device_name="Evil\x1b[31m\nCPU")
    assert name_of(row).isprintable()


def test_figure_is_the_geometric_mean_with_its_t_interval() -> None:
    (one,) = configurations(rows_at(8.0, 2.0))
    figure = one.figures()[0]
    # log mean: ln 4; sd of logs: sqrt(2) ln 2; error: ln 2; t(0.975, 1) = 12.7062
    assert (figure.label, figure.unit, figure.num_trials) == ("throughput", "patch/s", 2)
    assert figure.value == pytest.approx(4.0)
    assert figure.ends == pytest.approx((4.0 / 2**12.7062, 4.0 * 2**12.7062), rel=1e-4)


@pytest.mark.parametrize(("throughputs", "ends"), [((7.3,), None), ((1e9, 1e9, 1e9), (1e9, 1e9))])
def test_one_trial_has_no_interval_and_equal_trials_give_their_value_exactly(
    throughputs: tuple[float, ...], ends: tuple[float, float] | None
) -> None:
    (figure, *_) = configurations(rows_at(*throughputs))[0].figures()
    assert (figure.value, figure.ends) == (throughputs[0], ends)


@pytest.mark.parametrize("value", [0.0, -1.0, 1e300, math.nan, math.inf, None])
def test_what_cannot_be_a_figure_is_none(value: float | None) -> None:
    rows = rows_at(5.0, 5.0)
    rows[1]["throughput_per_s"] = value
    figure = configurations(rows)[0].figures()[0]
    assert (figure.value, figure.num_trials) == (5.0, 1)


def test_damaged_figures_decades_apart_have_no_interval() -> None:
    (figure, *_) = configurations(rows_at(1e-59, 1e59))[0].figures()
    assert figure.ends is None
    assert figure.value == pytest.approx(1.0)


def test_measure_that_no_trial_has_is_left_out() -> None:
    keys = {figure.key for figure in configurations(trials())[0].figures()}
    assert keys == {"throughput_patch_per_s", "step_median_ms"}


def test_strange_item_names_stay_usable_in_a_measure() -> None:
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


def test_second_attempt_stands_for_the_first_one() -> None:
    first, *rest = trials(num=3)
    rows = [{**first, "status": "INVALID"}, *rest, {**first, "attempt": 2}]
    selection = select(rows)
    assert [(row["trial"], row["attempt"]) for row in selection.usable] == [(1, 1), (2, 1), (0, 2)]
    assert len(selection.unusable) == 1


def test_a_file_given_twice_does_not_look_twice_as_certain() -> None:
    assert select(trials()).notes() == []
    selection = select(trials() + trials())
    assert len(selection.usable) == 5
    assert selection.notes() == ["5 rows were given more than once and count once"]
