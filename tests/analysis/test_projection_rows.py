"""From rows and profiles to what a projection starts from, and less of a device beside it."""

import json
import math
from pathlib import Path

import pytest

from bench.analysis.projection.measured import Start, measured_of
from bench.core.errors import DataError
from bench.hardware.operators import total
from bench.results.operator_profiles import profiles_path, read_profiles, write_profile
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials

ROOFS = {
    "roof_flops_per_s": 1e12,
    "roof_bytes_per_s": 1e11,
    "flops_per_item": 4e10,
    "bytes_per_item": 1e8,
    "device_vendor": "amd",
}
PROFILE = {
    "covered_frac": 0.8,
    "operators": [
        {"kind": "gemm", "dtype": "fp32", "calls": 3, "flops": 8e10, "bytes": 1e8,
         "least_bytes": 1e8, "time_s": 0.3},
        {"kind": "copy", "dtype": "fp32", "calls": 1, "flops": 1e6, "bytes": 1e8,
         "least_bytes": 0.0, "time_s": 0.1},
    ],
}  # fmt: skip


def rows(**cells: object) -> list[Row]:
    return trials(noise_frac=0.0, num=3, **{**ROOFS, **cells})  # type: ignore[arg-type]


def damaged(**changes: object) -> str:
    whole = {"config_hash": "c", "device": "cpu", "covered_frac": 1, "operators": []}
    return json.dumps({"version": 1, "profiles": [{**whole, **changes}]})


def only(found: list[Start]) -> Start:
    assert len(found) == 1
    return found[0]


def test_trials_are_one_start_and_a_profile_is_laid_over_its_step(tmp_path: Path) -> None:
    found, left_out = measured_of(rows(), profiles={})
    one = only(found)
    assert not left_out and not one.has_profile
    assert one.num_trials == 3
    assert one.step_s == pytest.approx(0.1)
    assert one.throughput_per_s == pytest.approx(20.0)
    # Two items of 40 GFLOP a step.
    assert one.operators[0].flops == pytest.approx(8e10)
    assert one.operators[0].time_s == pytest.approx(0.1)
    no_start = (
        ({"status": "FAILED"}, "no usable trial"),
        ({"mode": "emulated"}, "emulated"),
        ({"device_count": 8}, "several devices"),
        ({"device_type": "fake"}, "fake"),
        ({"roof_flops_per_s": None}, "roof was not measured"),
        ({"step_median_ms": None}, "no step time"),
    )
    for cells, said in no_start:
        found, left_out = measured_of(rows(**cells), profiles={})
        assert not found and said in left_out[0].reason, said
    path, other = tmp_path / "run.csv", tmp_path / "other.csv"
    write_profile(path, config_hash="c0ffee", device="cpu", profile=PROFILE)
    one = only(measured_of(rows(), profiles=read_profiles(path))[0])
    assert one.has_profile
    # 0.1 s a step, of which 0.8 is covered, three quarters of it by products.
    assert one.operators[0].time_s == pytest.approx(0.06)
    assert total(one.operators, "time_s") == pytest.approx(0.08)
    assert one.overhead_s == pytest.approx(0.02)
    # One of another configuration is not used.
    write_profile(other, config_hash="0ther", device="cpu", profile=PROFILE)
    assert not only(measured_of(rows(), profiles=read_profiles(other))[0]).has_profile


def test_writing_a_profile_again_replaces_it_and_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    for name, covered in (("c", 0.5), ("c", 0.9), ("d", 0.8)):
        profile = {**PROFILE, "covered_frac": covered}
        write_profile(path, config_hash=name, device="cpu", profile=profile)
    found = {key: one.covered_frac for key, one in read_profiles(path).items()}
    assert found == {("c", "cpu"): 0.9, ("d", "cpu"): 0.8}
    for text in (
        "", "[]", "{}", '{"version": 2, "profiles": []}', '{"version": 1, "profiles": [3]}',
        '{"version": 1, "profiles": [{}]}', damaged(covered_frac=7),
        damaged(operators=[{"kind": "gemm"}]),
        damaged(operators=[{**PROFILE["operators"][0], "flops": -1}]),  # type: ignore
    ):  # fmt: skip
        profiles_path(path).write_text(text)
        with pytest.raises(DataError) as raised:
            read_profiles(path)
        assert "\n" not in str(raised.value)


LESS = "this device with 2 cores"


def limited(*, step_ms: float = 200.0, num: int = 1, **cells: object) -> list[Row]:
    """Rows of less of the device that `rows` are of, under a hash of their own."""
    blank = {"roof_flops_per_s": None, "roof_bytes_per_s": None}
    own = {**ROOFS, **blank, "config_hash": "1e55", "chip_limit": LESS, **cells}
    return trials(step_ms=step_ms, num=num, noise_frac=0.0, **own)  # type: ignore[arg-type]


def test_every_limit_stands_beside_the_start_by_itself_and_changes_none() -> None:
    alone = only(measured_of(rows(), profiles={})[0])
    both = [*limited(), *limited(step_ms=400.0, chip_limit="one core", config_hash="1e551")]
    start = only(measured_of([*both, *rows()], profiles={})[0])
    assert [rate.value for _, rate in start.limited] == pytest.approx([10.0, 5.0])
    assert [rate.interval for _, rate in start.limited] == [None, None]
    assert start.step_s == alone.step_s and start.num_trials == alone.num_trials
    both = [*limited(step_ms=100.0), *limited(step_ms=400.0, run_id="run2")]
    ((limit, rate),) = only(measured_of([*rows(), *both], profiles={})[0]).limited
    # 20/s and 5/s; two trials have t = 12.7062 at 95 % and an error of log(4) / 2.
    assert (limit, rate.value, rate.num) == (LESS, pytest.approx(10.0), 2)
    assert (rate.interval or (0.0, 0.0))[1] == pytest.approx(
        10.0 * math.exp(12.7062 * math.log(4) / 2), rel=1e-3
    )


def test_a_limited_row_without_a_start_or_a_step_time_is_named() -> None:
    found, left_out = measured_of([*rows(roof_flops_per_s=None), *limited()], profiles={})
    assert not found
    assert ["roof" in one.reason for one in left_out] == [True, False]
    steps_ms = (None, 0.0, -1.0, 1e-300, 1e300, math.nan, True)
    for cells in ({"items": None}, {"steps": 0}, *({"step_median_ms": one} for one in steps_ms)):
        damaged_rows = [{**row, **cells} for row in limited()]
        found, left_out = measured_of([*rows(), *damaged_rows], profiles={})
        assert only(found).limited == (), cells
        assert [one.reason for one in left_out] == [f"no step time was measured on {LESS}"]
    # Another configuration or device is not beside it.
    for cells in ({"workload_version": "2-abc"}, {"params_json": '{"batch": 4, "patch": 32}'},
                  {"dtype": "bf16"}, {"compile": True}, {"grad_accum": 4},
                  {"device_name": "Another CPU"}):  # fmt: skip
        found, left_out = measured_of([*rows(), *limited(**cells)], profiles={})
        assert only(found).limited == () and len(left_out) == 1, cells
        assert LESS in left_out[0].reason and "on the whole of it" in left_out[0].reason
