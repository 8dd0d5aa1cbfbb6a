"""Less of a device beside a projection: what is the same configuration, and its figures."""

import math

import pytest

from bench.analysis.projection.measured import measured_of
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials
from tests.analysis.test_projection_rows import ROOFS, only, rows

LESS = "this device with 2 cores"


def limited(*, step_ms: float = 200.0, num: int = 1, **cells: object) -> list[Row]:
    """Rows of less of the device that `rows` are of, under a hash of their own."""
    blank = {"roof_flops_per_s": None, "roof_bytes_per_s": None}
    own = {**ROOFS, **blank, "config_hash": "1e55", "chip_limit": LESS, **cells}
    return trials(step_ms=step_ms, num=num, noise_frac=0.0, **own)  # type: ignore[arg-type]


def test_trials_are_taken_together_on_the_logarithm() -> None:
    both = [*limited(step_ms=100.0), *limited(step_ms=400.0, run_id="run2")]
    start = only(measured_of([*rows(), *both], profiles={})[0])
    reported = start.limited[0][1]
    # 20/s and 5/s; two trials have t = 12.7062 at 95 % and an error of log(4) / 2.
    assert reported.value == pytest.approx(10.0) and reported.num == 2
    assert (reported.interval or (0.0, 0.0))[1] == pytest.approx(
        10.0 * math.exp(12.7062 * math.log(4) / 2), rel=1e-3
    )


def test_every_limit_is_told_by_itself_and_changes_no_start() -> None:
    alone = only(measured_of(rows(), profiles={})[0])
    both = [*limited(), *limited(step_ms=400.0, chip_limit="one core", config_hash="1e551")]
    start = only(measured_of([*both, *rows()], profiles={})[0])
    assert [rate.value for _, rate in start.limited] == pytest.approx([10.0, 5.0])
    assert [rate.interval for _, rate in start.limited] == [None, None]
    assert start.step_s == alone.step_s and start.num_trials == alone.num_trials


@pytest.mark.parametrize(
    "cells",
    [
        {"workload_version": "2-abc"},
        {"size": "small"},
        {"params_json": '{"batch": 4, "patch": 32}'},
        {"dtype": "bf16"},
        {"data": "resident"},
        {"compile": True},
        {"channels_last": True},
        {"grad_accum": 4},
        {"device_name": "Another CPU"},
    ],
)
def test_another_configuration_or_device_is_not_beside_it(cells: dict[str, object]) -> None:
    found, left_out = measured_of([*rows(), *limited(**cells)], profiles={})
    assert only(found).limited == ()
    assert len(left_out) == 1
    assert LESS in left_out[0].reason and "on the whole of it" in left_out[0].reason

    # Nor does a whole device that is no start carry any.
    found, left_out = measured_of([*rows(roof_flops_per_s=None), *limited()], profiles={})
    assert not found
    assert ["roof" in one.reason for one in left_out] == [True, False]


@pytest.mark.parametrize(
    "cells",
    [
        {"items": None},
        {"steps": 0},
        *({"step_median_ms": cell} for cell in (None, 0.0, -1.0, 1e-300, 1e300, math.nan, True)),
    ],
)
def test_a_limited_row_without_a_step_time_is_named(cells: dict[str, object]) -> None:
    damaged = [{**row, **cells} for row in limited()]
    found, left_out = measured_of([*rows(), *damaged], profiles={})
    assert only(found).limited == ()
    assert [one.reason for one in left_out] == [f"no step time was measured on {LESS}"]
