"""The thread that watches a device, and energy and conditions of a window worked by hand."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.devices.host.cpu_noise import CpuSnapshot
from bench.devices.telemetry.common import Baseline, Sample
from bench.devices.telemetry.sampler import Sampler
from bench.devices.telemetry.window_sums import (
    Conditions,
    Energy,
    window_conditions,
    window_energy,
)
from bench.run.launching.observation import Observation, _throttle_reasons
from tests.devices.recorded_drivers import ReplayTelemetry

Reading = Callable[[float], float | None]


def reset_at(moment_s: float) -> Reading:
    return lambda t: 100.0 * (t if t < moment_s else t - moment_s)


def sampled(*, power_w: float | None = None, energy_j: Reading = lambda _: None) -> list[Sample]:
    """Twelve seconds, ten samples in each."""
    times_s = [number / 10 for number in range(121)]
    return [Sample(time_s=t, power_w=power_w, energy_j=energy_j(t)) for t in times_s]


def without(first_s: float, last_s: float) -> list[Sample]:
    samples = sampled(power_w=100.0, energy_j=lambda t: 100.0 * t)
    return [one for one in samples if not first_s < one.time_s < last_s]


def energy(samples, **window) -> Energy:
    window = {"start_s": 1.0, "end_s": 11.0, "idle_power_w": None, **window}
    return window_energy(samples, **window, scope="gpu")


def test_energy_of_steady_and_of_rising_power_is_as_worked_by_hand():
    samples = sampled(power_w=100.0, energy_j=lambda t: 5000.0 + 100.0 * t)
    answer = energy(samples, start_s=1.03, end_s=11.03, idle_power_w=30.0)
    expected = {
        "energy_j": 1000.0,
        "energy_net_j": 700.0,
        "energy_integrated_j": 1000.0,
        "energy_source": "counter",
        "energy_scope": "gpu",
        "power_mean_w": 100.0,
        "idle_power_w": 30.0,
        "is_unvalidated": False,
        "counter_problem": None,
    }
    assert asdict(answer) == pytest.approx(expected)
    # Readings are interpolated at the edges of the window.
    # Power is 10 W per second of time: from 1.25 s to 3.75 s that is 5 x (3.75^2 - 1.25^2) J.
    rising = [Sample(time_s=number / 10, power_w=float(number)) for number in range(121)]
    answer = energy(rising, start_s=1.25, end_s=3.75)
    assert answer.energy_j == pytest.approx(62.5)
    assert (answer.energy_source, answer.energy_net_j) == ("integrated", None)
    assert not answer.is_unvalidated
    ticks = [Sample(time_s=t, power_w=50.0, energy_j=50.0 * t) for t in map(float, range(6))]
    assert energy(ticks, start_s=0.5, end_s=4.5).energy_j == pytest.approx(200.0)
    # A gap outside the window does no harm.
    assert energy(without(0.1, 1.9), start_s=2.0).energy_j == pytest.approx(900.0)
    assert energy(without(10.1, 11.9), end_s=10.0).energy_j == pytest.approx(900.0)


@pytest.mark.parametrize(
    ("power_w", "counter", "energy_j", "source"),
    [
        (100.0, lambda t: 777.0, 1000.0, "integrated"),  # frozen
        (100.0, lambda t: 80.0 * t, 1000.0, "integrated"),  # 20 % off
        (100.0, lambda t: 120.0 * t, 1000.0, "integrated"),
        (100.0, lambda t: 90.0 * t, 900.0, "counter"),  # 10 % off
        (100.0, reset_at(5.0), 1000.0, "integrated"),
        (100.0, lambda t: 9e9 if t < 0.45 else 100.0 * t, 1000.0, "counter"),  # reset earlier
        # Without power beside it, a counter is used if it rises.
        (None, lambda t: 40.0 * t, 400.0, "counter"),
        (None, reset_at(5.0), None, None),
    ],
)
def test_a_counter_is_used_where_sampled_power_confirms_it(power_w, counter, energy_j, source):
    answer = energy(sampled(power_w=power_w, energy_j=counter))
    integrated_j = power_w and pytest.approx(10 * power_w)
    assert answer.energy_j == (energy_j and pytest.approx(energy_j))
    assert answer.energy_integrated_j == integrated_j
    assert (answer.energy_source, answer.is_unvalidated) == (source, source == "integrated")


@pytest.mark.parametrize(
    ("samples", "start_s", "end_s"),
    [
        (without(0, 0), 1.0, 2.9),  # a window under two seconds
        (sampled(), 1.0, 11.0),  # neither power nor energy
        ([], 1.0, 11.0),
        (without(5.0, 6.5), 1.0, 11.0),  # a gap over one second, inside or at an edge
        (without(0.4, 1.9), 1.0, 11.0),
        (without(10.4, 11.9), 1.0, 11.0),
        (without(0, 0), -0.05, 8.0),  # samples that do not bracket the window
        (without(0, 0), 1.0, 12.05),
    ],
)
def test_energy_that_cannot_be_measured_stays_blank(samples, start_s, end_s):
    answer = energy(samples, start_s=start_s, end_s=end_s, idle_power_w=30.0)
    assert answer == Energy(idle_power_w=30.0)


@given(
    powers_w=st.lists(st.floats(1.0, 700.0), min_size=81, max_size=81),
    middle_s=st.floats(2.5, 5.5),
    is_counted=st.booleans(),
)
def test_energy_is_additive_over_adjacent_windows(powers_w, middle_s, is_counted):
    samples = [
        Sample(time_s=number / 10, energy_j=sum(powers_w[: number + 1]) / 10)
        if is_counted
        else Sample(time_s=number / 10, power_w=power_w)
        for number, power_w in enumerate(powers_w)
    ]
    whole_j = energy(samples, start_s=0.25, end_s=7.75).energy_j
    first_j = energy(samples, start_s=0.25, end_s=middle_s).energy_j
    second_j = energy(samples, start_s=middle_s, end_s=7.75).energy_j
    assert whole_j == pytest.approx(first_j + second_j)


def test_conditions_are_shares_of_the_samples_in_the_window():
    readings = [
        (9e9, 40.0, {"hw_slowdown"}),
        (2e9, 50.0, set()),
        (1e9, 60.0, {"sw_power_cap"}),
        (1e9, 55.0, {"sw_power_cap", "hw_thermal"}),
        (2e9, 52.0, {"power_brake", "hw_slowdown"}),
        (9e9, 99.0, {"sync_boost"}),
    ]
    samples = [
        Sample(time_s=t, sm_clock_hz=clock, temperature_c=heat, throttle_reasons=frozenset(reasons))
        for t, (clock, heat, reasons) in enumerate(readings)
    ]
    assert window_conditions(samples, start_s=0.5, end_s=4.0) == Conditions(
        temp_start_c=40.0,
        temp_max_c=60.0,
        sm_clock_mean_hz=1.5e9,
        sm_clock_min_hz=1e9,
        throttle_frac=0.5,
        power_brake_frac=0.25,
        power_limited_frac=0.5,
        throttle_reasons=("hw_slowdown", "hw_thermal", "power_brake", "sw_power_cap"),
    )
    for silent in ([Sample(time_s=1.0)], []):
        assert window_conditions(silent, start_s=0.0, end_s=2.0) == Conditions()


@pytest.mark.parametrize(
    ("before_s", "after_s", "reasons"),
    [
        (1.0, 1.5, ["thermal_throttle"]),  # half a second of ten
        (1.0, 1.05, []),
        (9.0, 0.5, []),  # it was reset
        (1.0, None, []),
    ],
)
def test_heat_that_samples_missed_is_in_the_counter_of_the_driver(before_s, after_s, reasons):
    watched = Observation(before=Baseline(hot_s=before_s), after=Baseline(hot_s=after_s))
    assert _throttle_reasons(Conditions(), watched, window_s=10.0) == reasons


def snapshot_at(pid: int) -> CpuSnapshot:
    counters = {"busy_s": 0.0, "steal_s": None, "total_s": 0.0}
    return CpuSnapshot(time_s=float(pid), **counters, processes={}, switches={}, faults={})


def test_a_failing_reading_is_left_out_and_the_slow_ones_are_taken_less_often(monkeypatch):
    def fail_once(pid):
        asked.append(pid)
        if len(asked) == 1:
            raise ProcessLookupError(pid)
        return snapshot_at(pid)

    asked: list[int] = []
    now_s = iter(number / 10 for number in range(11))
    monkeypatch.setattr(time, "monotonic", lambda: next(now_s))
    readings = [Sample(time_s=1.0), OSError("gpu lost"), Sample(time_s=3.0)]
    replay = ReplayTelemetry(readings)
    sampler = Sampler(replay, pid=7, snapshot=fail_once)
    for _ in range(11):
        sampler.collect()
    assert [one.time_s for one in sampler.samples] == [1.0, 3.0]
    slow = [number for number, with_memory in enumerate(replay.asked) if with_memory]
    assert (slow, asked, len(sampler.snapshots)) == ([0, 5, 10], [7] * 3, 2)


def test_the_thread_brackets_the_time_between_start_and_stop():
    num_threads = threading.active_count()
    live = ReplayTelemetry([lambda: Sample(time_s=time.monotonic())] * 100)
    # A device without telemetry still gets snapshots of the processor.
    for telemetry, least in ((live, 2), (None, 0)):
        sampler = Sampler(telemetry, pid=7, snapshot=snapshot_at)
        sampler.start()
        time.sleep(0.25)
        stop_s = time.monotonic()
        sampler.stop()
        assert len(sampler.snapshots) >= 2
        assert len(sampler.samples) >= least
        assert all(one.time_s >= stop_s for one in sampler.samples[-1:])
        assert threading.active_count() == num_threads
    with pytest.raises(RuntimeError):
        sampler.start()
