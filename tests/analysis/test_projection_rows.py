"""From rows and profiles to what a projection starts from."""

import json
from pathlib import Path

import pytest

from bench.analysis.projection.measured import Start, measured_of, profiles_beside
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


def only(found: list[Start]) -> Start:
    assert len(found) == 1
    return found[0]


def test_trials_of_a_configuration_are_one_start() -> None:
    found, left_out = measured_of(rows(), profiles={})
    one = only(found)
    assert not left_out and not one.has_profile
    assert one.num_trials == 3
    assert one.step_s == pytest.approx(0.1)
    assert one.throughput_per_s == pytest.approx(20.0)
    # Two items of 40 GFLOP a step.
    assert one.operators[0].flops == pytest.approx(8e10)
    assert one.operators[0].time_s == pytest.approx(0.1)


def test_a_profile_is_laid_over_the_measured_step(tmp_path: Path) -> None:
    path, other = tmp_path / "run.csv", tmp_path / "other.csv"
    write_profile(path, config_hash="c0ffee", device="cpu", profile=PROFILE)
    one = only(measured_of(rows(), profiles=profiles_beside([path]))[0])
    assert one.has_profile
    # 0.1 s a step, of which 0.8 is covered, three quarters of it by products.
    assert one.operators[0].time_s == pytest.approx(0.06)
    assert total(one.operators, "time_s") == pytest.approx(0.08)
    assert one.overhead_s == pytest.approx(0.02)
    # One of another configuration is not used.
    write_profile(other, config_hash="0ther", device="cpu", profile=PROFILE)
    assert not only(measured_of(rows(), profiles=profiles_beside([other]))[0]).has_profile


def test_writing_a_profile_again_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    for name, covered in (("c", 0.5), ("c", 0.9), ("d", 0.8)):
        profile = {**PROFILE, "covered_frac": covered}
        write_profile(path, config_hash=name, device="cpu", profile=profile)
    found = {key: one.covered_frac for key, one in read_profiles(path).items()}
    assert found == {("c", "cpu"): 0.9, ("d", "cpu"): 0.8}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"status": "FAILED"}, "no usable trial"),
        ({"mode": "emulated"}, "emulated"),
        ({"device_count": 8}, "several devices"),
        ({"device_type": "fake"}, "fake"),
        ({"roof_flops_per_s": None}, "roof was not measured"),
        ({"step_median_ms": None}, "no step time"),
    ],
)
def test_what_is_no_start_is_named(cells: dict[str, object], said: str) -> None:
    found, left_out = measured_of(rows(**cells), profiles={})
    assert not found
    assert said in left_out[0].reason


def damaged(**changes: object) -> str:
    whole = {"config_hash": "c", "device": "cpu", "covered_frac": 1, "operators": []}
    return json.dumps({"version": 1, "profiles": [{**whole, **changes}]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "profiles": []}',
        '{"version": 1, "profiles": [3]}',
        '{"version": 1, "profiles": [{}]}',
        damaged(covered_frac=7),
        damaged(operators=[{"kind": "gemm"}]),
        damaged(operators=[{**PROFILE["operators"][0], "flops": -1}]),  # type: ignore
    ],
)
def test_a_damaged_profile_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.csv"
    profiles_path(path).write_text(text)
    with pytest.raises(DataError) as raised:
        read_profiles(path)
    assert "\n" not in str(raised.value)
