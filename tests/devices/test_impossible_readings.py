"""What drivers give for "unknown" is never a figure: readings, energy, the row, doctor."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cli import main
from bench.devices.doctor import all_findings
from bench.devices.telemetry.bounds import BOUNDS
from bench.devices.telemetry.common import Baseline, Sample, Telemetry
from bench.devices.telemetry.nvml import NvmlTelemetry
from bench.devices.telemetry.readers import AmdTelemetry, open_rapl
from bench.devices.telemetry.window_sums import Energy, window_energy
from bench.measure.messages import Samples, TrialResult
from bench.run.launching import observation as watched
from bench.run.launching.observation import Observation, observed_columns
from tests.devices.recorded_drivers import (
    H100,
    MI300X,
    RecordedAmdSmi,
    RecordedNvml,
    instant_power,
    make_tree,
)

ALL_ONES = 2**16 - 1, 2**32 - 1, 2**64 - 1


def nvml(**readings: Any) -> NvmlTelemetry:
    return NvmlTelemetry(RecordedNvml(**readings), handle="handle 0")


def amd(power: Any, energy: Any = None) -> AmdTelemetry:
    smi = RecordedAmdSmi(amdsmi_get_power_info=power, amdsmi_get_energy_count=energy)
    return AmdTelemetry(smi, handle=0)


def power_is(power_mw: int | None, counter_mj: int | None = None) -> dict[str, Any]:
    """A driver without the instant field."""
    return {
        "nvmlDeviceGetFieldValues": None,
        "nvmlDeviceGetPowerUsage": power_mw,
        "nvmlDeviceGetTotalEnergyConsumption": counter_mj,
    }


@pytest.mark.parametrize(
    ("call", "reading", "field", "words"),
    [
        ("PowerUsage", 0, "power_w", "0 W"),
        ("PowerUsage", -1, "power_w", "-0.001 W"),
        ("PowerUsage", 2**32 - 1, "power_w", "4.29497e+06 W"),
        ("TotalEnergyConsumption", 2**64 - 1, "energy_j", "1.84467e+16 J"),
        ("TotalEnergyConsumption", -1, "energy_j", "-0.001 J"),
        ("Temperature", -1, "temperature_c", "-1 C"),
        ("Temperature", 255, "temperature_c", "255 C"),
        ("ClockInfo", 0, "sm_clock_hz", "0 Hz"),
        ("ClockInfo", 2**32 - 1, "sm_clock_hz", "4.29497e+15 Hz"),
        ("MemoryInfo", SimpleNamespace(used=2**64 - 1), "used_bytes", None),
        ("UtilizationRates", SimpleNamespace(gpu=-1), "utilization_frac", None),
    ],
)
def test_a_reading_that_no_device_can_have_is_none_with_what_the_driver_gave(
    call: str, reading: Any, field: str, words: str | None
) -> None:
    readings = {**power_is(90_000, 5), f"nvmlDeviceGet{call}": reading}
    sample = nvml(**readings).sample()
    assert getattr(sample, field) is None
    assert list(sample.refused) == [field]
    assert words in (None, sample.refused[field])
    assert nvml(**power_is(90_000, 5)).sample().refused == {}


def test_an_impossible_instant_power_gives_way_to_the_mean_of_a_second() -> None:
    for power_mw in (0, 2**32 - 1):
        sample = nvml(nvmlDeviceGetFieldValues=instant_power(power_mw)).sample()
        assert (sample.power_w, sample.refused) == (111.0, {})


def test_limits_and_counters_of_the_driver_have_bounds_too() -> None:
    base = nvml(
        nvmlDeviceGetEnforcedPowerLimit=0,
        nvmlDeviceGetCurrPcieLinkWidth=0,
        nvmlDeviceGetTotalEccErrors=2**64 - 1,
        nvmlDeviceGetViolationStatus=SimpleNamespace(violationTime=2**64 - 1),
        nvmlDeviceGetMaxClockInfo=-1,
    ).baseline()
    blank = ["power_limit_w", "ecc_uncorrected", "hot_s", "sm_clock_max_hz", "pcie_width"]
    assert [getattr(base, name) for name in blank] == [None] * 5
    assert list(base.refused) == blank
    assert base.power_limit_default_w == 700.0


@pytest.mark.parametrize(
    ("power", "power_w", "words"),
    [
        ({"current_socket_power": "N/A", "average_socket_power": 17}, 17, None),
        ({"current_socket_power": 0, "average_socket_power": 90}, 90, None),
        ({"current_socket_power": 65_535, "average_socket_power": 90}, 90, None),
        ({"current_socket_power": 0, "average_socket_power": "N/A"}, None, "0 W"),
        (
            {"current_socket_power": 65_535, "average_socket_power": 65_535},
            None,
            "all ones",
        ),
        ({"current_socket_power": "17 W", "average_socket_power": "17"}, None, None),
    ],
)
def test_amd_fields_that_are_full_of_ones_or_zero_give_way_to_others(
    power: dict[str, Any], power_w: float | None, words: str | None
) -> None:
    sample = amd(power).sample()
    assert (sample.power_w, sample.refused.get("power_w")) == (power_w, words)


RAW = st.one_of(
    st.integers(-(2**40), 2**66),
    st.sampled_from([0, -1, *ALL_ONES]),
    st.floats(),
    st.just("N/A"),
    st.none(),
)


@given(st.data())
def test_whatever_a_driver_answers_is_none_or_within_bounds(data: st.DataObject) -> None:
    number = st.one_of(st.integers(-(2**40), 2**66), st.sampled_from([0, -1, *ALL_ONES]))
    plain = [name for name, value in H100.items() if "Get" in name and isinstance(value, int)]
    readings: dict[str, Any] = {name: data.draw(number, label=name) for name in plain}
    readings["nvmlDeviceGetMigMode"] = None
    readings["nvmlDeviceIsMigDeviceHandle"] = 0
    readings["nvmlDeviceGetFieldValues"] = instant_power(data.draw(number))
    readings["nvmlDeviceGetMemoryInfo"] = SimpleNamespace(used=data.draw(number), free=1)
    answers = {
        call: {name: data.draw(RAW, label=name) for name in value}
        for call, value in MI300X.items()
        if isinstance(value, dict)
    }
    answers["amdsmi_get_temp_metric"] = data.draw(RAW)
    for telemetry in (nvml(**readings), AmdTelemetry(RecordedAmdSmi(**answers), handle=0)):
        for found in (telemetry.sample(), telemetry.baseline()):
            for field in fields(found):
                value, bounds = getattr(found, field.name), BOUNDS.get(field.name)
                assert value is None or bounds is None or bounds.least <= value <= bounds.most
                assert value is None or field.name not in found.refused


# What becomes of it ------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ten readings a second."""
    moments = count()
    monkeypatch.setattr("time.monotonic", lambda: next(moments) / 10)
    yield


def summed(telemetry: Telemetry, tick: Callable[[], None] = lambda: None) -> Energy:
    samples = []
    for _ in range(60):
        tick()
        samples.append(telemetry.sample())
    start_s, end_s = samples[5].time_s, samples[-5].time_s
    return window_energy(
        samples, start_s=start_s, end_s=end_s, idle_power_w=None, scope=telemetry.scope
    )


UNSUPPORTED = dict.fromkeys(name for name in H100 if name.startswith("nvmlDeviceGet"))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("telemetry", "energy_j", "problem"),
    [
        (nvml(**UNSUPPORTED), None, None),  # Jetson
        (nvml(**power_is(0)), None, None),  # WSL
        (nvml(**power_is(0, 0)), None, "the energy counter stood still"),
        (nvml(nvmlDeviceGetTotalEnergyConsumption=7_000), 1250.0, "the energy counter stood still"),
        (nvml(**power_is(None, 7_000)), None, "the energy counter stood still"),
        (nvml(nvmlDeviceGetMigMode=[1, 1]), None, None),
        (amd({"current_socket_power": 0, "average_socket_power": "N/A"}), None, None),
        (amd({"current_socket_power": 65_535, "average_socket_power": 65_535}), None, None),
        (amd({"current_socket_power": "N/A", "average_socket_power": 17}), 85.0, None),
    ],
)
def test_energy_of_a_driver_that_does_not_know_is_blank_and_never_zero(
    telemetry: Telemetry, energy_j: float | None, problem: str | None
) -> None:
    """Boards whose owners saw 0 J, and 327 kJ in five seconds."""
    found = summed(telemetry)
    assert found.energy_j == (energy_j and pytest.approx(energy_j))
    assert found.counter_problem == problem
    assert found.power_mean_w != 0


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("gain_uj", "energy_j", "problem"),
    [
        (lambda number: 6_500_000, 65 * 5.0, None),
        # Resumed from sleep: the counter begins anew, which looks like a wrap of its range.
        (lambda number: -90_000_000 if number == 30 else 6_500_000, None, "jumped by 262,053 J"),
    ],
)
def test_a_package_counter_that_jumps_is_no_energy(
    tmp_path: Path, gain_uj: Callable[[int], int], energy_j: float | None, problem: str | None
) -> None:
    folder = tmp_path / "sys/class/powercap/intel-rapl:0"
    files = {"name": "package-0", "energy_uj": "0", "max_energy_range_uj": "262143328850"}
    make_tree(folder, files)
    telemetry, numbers, now_uj = open_rapl(root=tmp_path), count(), 100_000_000

    def tick() -> None:
        nonlocal now_uj
        now_uj += gain_uj(next(numbers))
        (folder / "energy_uj").write_text(str(now_uj))

    assert telemetry is not None
    found = summed(telemetry, tick)
    assert found.energy_j == (energy_j and pytest.approx(energy_j))
    assert (problem is None) == (found.counter_problem is None)
    assert problem is None or problem in str(found.counter_problem)


def test_a_tick_that_falls_into_a_short_step_is_no_jump() -> None:
    """The counter of a 5 kW board moves once in 100 ms; the last two readings are 1 ms apart."""
    times_s = [*(number / 10 for number in range(60)), 5.901]
    samples = [Sample(time_s=t, energy_j=500.0 * round(10 * t + 0.4)) for t in times_s]
    found = window_energy(samples, start_s=0.5, end_s=5.9005, idle_power_w=None, scope="gpu")
    assert found.counter_problem is None and found.energy_j is not None


RESULT = TrialResult(
    row={},
    reasons=[],
    detail="",
    window_start_s=0.5,
    window_end_s=5.5,
    samples=Samples(warmup_step_s=[], step_s=[], step_clock="host", data_wait_s=None),
)


@pytest.mark.parametrize(
    ("counter", "power_w", "reasons", "detail"),
    [
        (lambda t: 65 * (t if t < 3 else t - 3), 65.0, ["energy_unvalidated"], "went back by 188"),
        (lambda t: 65 * t + (1e6 if t > 3 else 0), None, [], "jumped by 1.00001e+06 J within 0.1"),
        (lambda t: 37.5 * t, 65.4, ["energy_unvalidated"], None),
        (lambda t: 65 * t, 65.0, [], None),
    ],
)
def test_the_row_says_what_was_wrong_with_a_counter(
    counter: Callable[[float], float],
    power_w: float | None,
    reasons: list[str],
    detail: str | None,
) -> None:
    samples = [Sample(time_s=n / 10, power_w=power_w, energy_j=counter(n / 10)) for n in range(60)]
    observation = Observation(before=Baseline())
    observation.sampler = SimpleNamespace(samples=samples, snapshots=[])  # type: ignore[assignment]
    columns, found = observed_columns(
        observation, row={}, result=RESULT, usable_cores=1, has_energy=True
    )
    assert found == reasons
    assert (columns["detail"] is None) == (detail is None)
    assert detail is None or detail in str(columns["detail"])
    assert columns["energy_j"] == (power_w and pytest.approx(5 * power_w))


def test_a_run_beside_a_driver_that_knows_nothing_keeps_its_row_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = {
        **power_is(0),
        "nvmlDeviceGetTemperature": -1,
        "nvmlDeviceGetEnforcedPowerLimit": 0,
        "nvmlDeviceGetCurrentClocksEventReasons": 0,
        "nvmlDeviceGetViolationStatus": None,
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2**20),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=0),
    }
    monkeypatch.setattr(watched, "open_telemetry", lambda device: nvml(**readings))
    out = str(tmp_path)
    words = ["run", "--workload", "sleep-infer", "--size", "tiny", "--profile", "smoke"]
    assert main([*words, "--device", "cpu", "--out", out]) == 0
    (path,) = tmp_path.glob("*.csv")
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert row["status"] == "WARN" and "energy_unvalidated" not in row["reasons"]
    for name in ("energy_j", "power_mean_w", "idle_power_w", "temp_max_c", "power_limit_w"):
        assert row[name] == "", name
    # A window of milliseconds may end before the sampler's first reading.
    assert row["sm_clock_mean_hz"] in ("", "1755000000.0")
    assert row["detail"] == (
        "power limit not measured: the driver gives 0 W; "
        "power not measured: the driver gives 0 W; "
        "temperature not measured: the driver gives -1 C"
    )


def test_doctor_names_what_the_driver_gives_in_place_of_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = RecordedNvml(**power_is(0), nvmlDeviceGetPowerManagementDefaultLimit=0)
    monkeypatch.setattr(all_findings, "import_nvml", lambda: driver)
    monkeypatch.setattr(all_findings, "import_amdsmi", lambda: None)
    found = [one for one in all_findings.gpu_findings() if "the driver gives" in one.what]
    assert [one.what for one in found] == [
        "GPU 0 (Fake H100): the driver gives default power limit 0 W, power 0 W"
    ]
