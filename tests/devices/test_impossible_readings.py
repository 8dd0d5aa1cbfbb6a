"""What drivers give for "unknown" is never a figure: readings, energy and the row."""

from itertools import count
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.devices.telemetry.bounds import is_possible
from bench.devices.telemetry.common import Baseline, Sample
from bench.devices.telemetry.nvml import NvmlTelemetry
from bench.devices.telemetry.readers import AmdTelemetry
from bench.devices.telemetry.window_sums import window_energy
from bench.measure.messages import Samples, TrialResult
from bench.run.launching.observation import Observation, observed_columns
from tests.devices.recorded_drivers import (
    H100,
    MI300X,
    RecordedAmdSmi,
    RecordedNvml,
    instant_power,
)

ALL_ONES = 2**16 - 1, 2**32 - 1, 2**64 - 1


def nvml(**readings):
    """An H100 whose driver lacks the instant field; a reading is named without its prefix."""
    calls = {f"nvmlDeviceGet{name}": value for name, value in readings.items()}
    driver = RecordedNvml(**{"nvmlDeviceGetFieldValues": None, **calls})
    return NvmlTelemetry(driver, handle="handle 0")


def amd(current, average):
    power = {"current_socket_power": current, "average_socket_power": average}
    smi = RecordedAmdSmi(amdsmi_get_power_info=power, amdsmi_get_energy_count=None)
    return AmdTelemetry(smi, handle=0)


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
        # Limits and counters of the driver.
        ("EnforcedPowerLimit", 0, "power_limit_w", "0 W"),
        ("CurrPcieLinkWidth", 0, "pcie_width", "0 lanes"),
        ("TotalEccErrors", 2**64 - 1, "ecc_uncorrected", None),
        ("ViolationStatus", SimpleNamespace(violationTime=2**64 - 1), "hot_s", None),
        ("MaxClockInfo", -1, "sm_clock_max_hz", "-1e+06 Hz"),
    ],
)
def test_a_reading_that_no_device_can_have_is_none_with_what_the_driver_gave(
    call, reading, field, words
):
    telemetry = nvml(**{call: reading})
    found = telemetry.sample() if hasattr(Sample, field) else telemetry.baseline()
    assert getattr(found, field) is None
    assert list(found.refused) == [field]
    assert words in (None, found.refused[field])
    assert nvml().sample().refused == nvml().baseline().refused == {}


@pytest.mark.parametrize(
    ("current", "average", "power_w", "words"),
    [
        ("N/A", 17, 17, None),
        (0, 90, 90, None),
        (65_535, 90, 90, None),
        (0, "N/A", None, "0 W"),
        (65_535, 65_535, None, "all ones"),
        ("17 W", "17", None, None),
    ],
)
def test_amd_fields_that_are_full_of_ones_or_zero_give_way_to_others(
    current, average, power_w, words
):
    sample = amd(current, average).sample()
    assert (sample.power_w, sample.refused.get("power_w")) == (power_w, words)


NUMBER = st.integers(-(2**40), 2**66) | st.sampled_from([0, -1, *ALL_ONES])
RAW = NUMBER | st.floats() | st.sampled_from(["N/A", None])


@given(st.data())
def test_whatever_a_driver_answers_is_none_or_within_bounds(data):
    plain = [name for name, value in H100.items() if "Get" in name and isinstance(value, int)]
    readings = {name: data.draw(NUMBER, label=name) for name in plain}
    readings["nvmlDeviceGetFieldValues"] = instant_power(data.draw(NUMBER))
    readings["nvmlDeviceGetMemoryInfo"] = SimpleNamespace(used=data.draw(NUMBER), free=1)
    answers = {
        call: {name: data.draw(RAW, label=name) for name in value}
        for call, value in MI300X.items()
        if isinstance(value, dict)
    }
    answers["amdsmi_get_temp_metric"] = data.draw(RAW)
    nvidia = NvmlTelemetry(RecordedNvml(**readings), handle="handle 0")
    for telemetry in (nvidia, AmdTelemetry(RecordedAmdSmi(**answers), handle=0)):
        for found in (telemetry.sample(), telemetry.baseline()):
            for name, value in vars(found).items():
                assert value is None or (is_possible(name, value) and name not in found.refused)


# What becomes of it ------------------------------------------------------------------------------


def sampled(monkeypatch, telemetry):
    """Six seconds of ten readings each."""
    moments = count()
    monkeypatch.setattr("time.monotonic", lambda: next(moments) / 10)
    return [telemetry.sample() for _ in range(60)]


STOOD_STILL = "the energy counter stood still"
UNSUPPORTED = [name.removeprefix("nvmlDeviceGet") for name in H100 if "DeviceGet" in name]


@pytest.mark.parametrize(
    ("telemetry", "energy_j", "problem"),
    [
        (nvml(**dict.fromkeys(UNSUPPORTED)), None, None),  # Jetson
        (nvml(PowerUsage=0, TotalEnergyConsumption=None), None, None),  # WSL
        (nvml(PowerUsage=0, TotalEnergyConsumption=0), None, STOOD_STILL),
        (nvml(FieldValues=instant_power(250_000)), 1250.0, STOOD_STILL),
        (nvml(PowerUsage=None), None, STOOD_STILL),
        (nvml(MigMode=[1, 1]), None, None),
        (amd(0, "N/A"), None, None),
        (amd(65_535, 65_535), None, None),
        (amd("N/A", 17), 85.0, None),
    ],
)
def test_energy_of_a_driver_that_does_not_know_is_blank_and_never_zero(
    monkeypatch, telemetry, energy_j, problem
):
    """Boards whose owners saw 0 J, and 327 kJ in five seconds."""
    samples = sampled(monkeypatch, telemetry)
    found = window_energy(samples, start_s=0.5, end_s=5.5, idle_power_w=None, scope="gpu")
    assert found.energy_j == (energy_j and pytest.approx(energy_j))
    assert found.counter_problem == problem
    assert found.power_mean_w != 0


def test_a_tick_that_falls_into_a_short_step_is_no_jump():
    """The counter of a 5 kW board moves once in 100 ms; the last two readings are 1 ms apart."""
    times_s = [*(number / 10 for number in range(60)), 5.901]
    samples = [Sample(time_s=t, energy_j=500.0 * round(10 * t + 0.495)) for t in times_s]
    found = window_energy(samples, start_s=0.5, end_s=5.9005, idle_power_w=None, scope="gpu")
    assert found.counter_problem is None and found.energy_j is not None


def observed(samples, before):
    observation = Observation(before=before)
    observation.sampler = SimpleNamespace(samples=samples, snapshots=[])
    blank = Samples(warmup_step_s=[], step_s=[], step_clock="host", data_wait_s=None)
    moments = {"window_start_s": 0.5, "window_end_s": 5.5}
    result = TrialResult(row={}, reasons=[], detail="", samples=blank, **moments)
    return observed_columns(observation, row={}, result=result, usable_cores=1, has_energy=True)


@pytest.mark.parametrize(
    ("counter", "power_w", "reasons", "detail"),
    [
        (lambda t: 65 * (t if t < 3 else t - 3), 65.0, ["energy_unvalidated"], "went back by 188"),
        (lambda t: 65 * t + (1e6 if t > 3 else 0), None, [], "jumped by 1.00001e+06 J within 0.1"),
        (lambda t: 37.5 * t, 65.4, ["energy_unvalidated"], None),
        (lambda t: 65 * t, 65.0, [], None),
    ],
)
def test_the_row_says_what_was_wrong_with_a_counter(counter, power_w, reasons, detail):
    samples = [Sample(time_s=n / 10, power_w=power_w, energy_j=counter(n / 10)) for n in range(60)]
    columns, found = observed(samples, Baseline())
    assert found == reasons
    assert columns["detail"] is None if detail is None else detail in columns["detail"]
    assert columns["energy_j"] == (power_w and pytest.approx(5 * power_w))


def test_the_row_beside_a_driver_that_knows_nothing_is_blank_and_says_so(monkeypatch):
    silent = {"PowerUsage": 0, "TotalEnergyConsumption": None, "Temperature": -1}
    telemetry = nvml(**silent, EnforcedPowerLimit=0, CurrentClocksEventReasons=0)
    columns, reasons = observed(sampled(monkeypatch, telemetry), telemetry.baseline())
    assert "energy_unvalidated" not in reasons
    blank = ("energy_j", "power_mean_w", "idle_power_w", "temp_max_c", "power_limit_w")
    assert [columns[name] for name in blank] == [None] * 5
    assert columns["sm_clock_mean_hz"] == 1.755e9
    assert columns["detail"] == (
        "power limit not measured: the driver gives 0 W; "
        "power not measured: the driver gives 0 W; "
        "temperature not measured: the driver gives -1 C"
    )
