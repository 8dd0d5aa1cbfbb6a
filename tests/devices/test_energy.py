"""Energy and conditions of a window against hand-worked numbers."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.devices.conditions import Conditions, violations_s, window_conditions
from bench.devices.energy import Energy, window_energy
from bench.devices.telemetry import Baseline, Sample


def every_100_ms(
    duration_s: float,
    *,
    power_w: Callable[[float], float | None] = lambda _: None,
    energy_j: Callable[[float], float | None] = lambda _: None,
) -> list[Sample]:
    times_s = [number / 10 for number in range(int(duration_s * 10) + 1)]
    return [
        Sample(time_s=time_s, power_w=power_w(time_s), energy_j=energy_j(time_s))
        for time_s in times_s
    ]


def energy(
    samples: list[Sample], *, start_s: float, end_s: float, idle_power_w: float | None = None
) -> Energy:
    return window_energy(
        samples, start_s=start_s, end_s=end_s, idle_power_w=idle_power_w, scope="gpu"
    )


def test_steady_hundred_watts_give_a_thousand_joules_in_ten_seconds() -> None:
    samples = every_100_ms(12, power_w=lambda _: 100.0, energy_j=lambda t: 5000.0 + 100.0 * t)
    answer = energy(samples, start_s=1.03, end_s=11.03, idle_power_w=30.0)
    assert answer.energy_j == pytest.approx(1000.0)
    assert answer.energy_net_j == pytest.approx(700.0)
    assert answer.energy_integrated_j == pytest.approx(1000.0)
    assert answer.power_mean_w == pytest.approx(100.0)
    assert (answer.energy_source, answer.energy_scope) == ("counter", "gpu")
    assert (answer.is_unvalidated, answer.reason, answer.idle_power_w) == (False, None, 30.0)


def test_rising_power_is_integrated_with_interpolated_edges() -> None:
    # Power is 10 W per second of time: from 1.25 s to 3.75 s that is 5 x (3.75^2 - 1.25^2) J.
    answer = energy(every_100_ms(5, power_w=lambda t: 10.0 * t), start_s=1.25, end_s=3.75)
    assert answer.energy_j == pytest.approx(62.5)
    assert answer.energy_source == "integrated"
    assert answer.energy_net_j is None
    assert not answer.is_unvalidated


def test_counter_is_interpolated_between_its_ticks_at_the_edges() -> None:
    samples = [
        Sample(time_s=float(second), power_w=50.0, energy_j=50.0 * second) for second in range(6)
    ]
    assert energy(samples, start_s=0.5, end_s=4.5).energy_j == pytest.approx(200.0)


def test_frozen_counter_is_replaced_by_sampled_power_and_marked() -> None:
    samples = every_100_ms(12, power_w=lambda _: 100.0, energy_j=lambda _: 777.0)
    answer = energy(samples, start_s=1.0, end_s=11.0)
    assert answer.energy_j == pytest.approx(1000.0)
    assert (answer.energy_source, answer.is_unvalidated) == ("integrated", True)
    assert answer.reason is not None and "did not move" in answer.reason


def test_counter_twenty_percent_off_is_not_used() -> None:
    samples = every_100_ms(12, power_w=lambda _: 100.0, energy_j=lambda t: 80.0 * t)
    answer = energy(samples, start_s=1.0, end_s=11.0)
    assert answer.energy_j == pytest.approx(1000.0)
    assert (answer.energy_source, answer.is_unvalidated) == ("integrated", True)
    assert answer.reason is not None and "800 J" in answer.reason


def test_counter_ten_percent_off_is_used() -> None:
    samples = every_100_ms(12, power_w=lambda _: 100.0, energy_j=lambda t: 90.0 * t)
    answer = energy(samples, start_s=1.0, end_s=11.0)
    assert answer.energy_j == pytest.approx(900.0)
    assert answer.energy_integrated_j == pytest.approx(1000.0)
    assert (answer.energy_source, answer.is_unvalidated) == ("counter", False)


def test_counter_that_was_reset_in_the_window_is_not_used() -> None:
    def counter(time_s: float) -> float:
        return 100.0 * time_s if time_s < 5 else 100.0 * (time_s - 5)

    samples = every_100_ms(12, power_w=lambda _: 100.0, energy_j=counter)
    answer = energy(samples, start_s=1.0, end_s=11.0)
    assert answer.energy_j == pytest.approx(1000.0)
    assert answer.is_unvalidated
    alone = energy(every_100_ms(12, energy_j=counter), start_s=1.0, end_s=11.0)
    assert alone.energy_j is None
    assert alone.reason == "the energy counter went backwards"
    assert not alone.is_unvalidated


def test_counter_reset_before_the_window_does_no_harm() -> None:
    samples = every_100_ms(
        12, power_w=lambda _: 100.0, energy_j=lambda t: 9e9 if t < 0.45 else 100.0 * t
    )
    assert energy(samples, start_s=1.0, end_s=11.0).energy_source == "counter"


def test_counter_without_power_beside_it_is_used_and_said_to_be_unchecked() -> None:
    answer = energy(every_100_ms(12, energy_j=lambda t: 40.0 * t), start_s=1.0, end_s=11.0)
    assert answer.energy_j == pytest.approx(400.0)
    assert (answer.energy_source, answer.energy_integrated_j) == ("counter", None)
    assert answer.reason is not None and "no sampled power" in answer.reason


def test_window_under_two_seconds_is_blank() -> None:
    answer = energy(every_100_ms(5, power_w=lambda _: 100.0), start_s=1.0, end_s=2.9)
    assert (answer.energy_j, answer.energy_source, answer.energy_scope) == (None, None, None)
    assert answer.reason == "the window is under 2 s"


def test_missing_energy_stays_blank() -> None:
    answer = energy(every_100_ms(12), start_s=1.0, end_s=11.0, idle_power_w=None)
    assert answer == Energy(reason="the device gives neither power nor energy")


def test_gap_over_one_second_makes_it_blank() -> None:
    samples = every_100_ms(12, power_w=lambda _: 100.0, energy_j=lambda t: 100.0 * t)
    holed = [one for one in samples if not 5.0 < one.time_s < 6.5]
    answer = energy(holed, start_s=1.0, end_s=11.0)
    assert answer.energy_j is None
    assert answer.reason == "no sample for 1.5 s"


def test_gap_outside_the_window_does_no_harm() -> None:
    samples = every_100_ms(12, power_w=lambda _: 100.0)
    holed = [one for one in samples if not 0.1 < one.time_s < 1.9]
    assert energy(holed, start_s=2.0, end_s=11.0).energy_j == pytest.approx(900.0)


@pytest.mark.parametrize(("start_s", "end_s"), [(-0.05, 8.0), (1.0, 12.05)])
def test_window_that_samples_do_not_bracket_is_blank(start_s: float, end_s: float) -> None:
    samples = every_100_ms(12, power_w=lambda _: 100.0)
    answer = energy(samples, start_s=start_s, end_s=end_s)
    assert answer.energy_j is None
    assert answer.reason == "samples do not cover the window"


powers_w = st.lists(st.floats(1.0, 700.0), min_size=81, max_size=81)


@given(powers_w=powers_w, middle_s=st.floats(2.5, 5.5))
def test_integrated_energy_is_additive_over_adjacent_windows(
    powers_w: list[float], middle_s: float
) -> None:
    samples = [
        Sample(time_s=number / 10, power_w=power_w) for number, power_w in enumerate(powers_w)
    ]
    parts = [
        energy(samples, start_s=0.25, end_s=middle_s).energy_j,
        energy(samples, start_s=middle_s, end_s=7.75).energy_j,
    ]
    whole_j = energy(samples, start_s=0.25, end_s=7.75).energy_j
    assert whole_j == pytest.approx(sum(part for part in parts if part is not None))
    assert None not in parts


@given(powers_w=powers_w, middle_s=st.floats(2.5, 5.5))
def test_counted_energy_is_additive_over_adjacent_windows(
    powers_w: list[float], middle_s: float
) -> None:
    total_j = 0.0
    samples: list[Sample] = []
    for number, power_w in enumerate(powers_w):
        total_j += power_w / 10
        samples.append(Sample(time_s=number / 10, energy_j=total_j))
    parts = [
        energy(samples, start_s=0.25, end_s=middle_s).energy_j,
        energy(samples, start_s=middle_s, end_s=7.75).energy_j,
    ]
    assert energy(samples, start_s=0.25, end_s=7.75).energy_j == pytest.approx(
        sum(part for part in parts if part is not None)
    )
    assert None not in parts


def test_conditions_are_shares_of_the_samples_in_the_window() -> None:
    def sample(time_s: float, *, clock: float, heat: float, reasons: set[str]) -> Sample:
        return Sample(
            time_s=time_s,
            sm_clock_hz=clock,
            temperature_c=heat,
            throttle_reasons=frozenset(reasons),
            power_limited="sw_power_cap" in reasons,
            used_bytes=int(time_s * 100),
        )

    samples = [
        sample(0.0, clock=9e9, heat=40.0, reasons={"hw_slowdown"}),
        sample(1.0, clock=2e9, heat=50.0, reasons=set()),
        sample(2.0, clock=1e9, heat=60.0, reasons={"sw_power_cap"}),
        sample(3.0, clock=1e9, heat=55.0, reasons={"sw_power_cap", "hw_thermal"}),
        sample(4.0, clock=2e9, heat=52.0, reasons={"power_brake", "hw_slowdown"}),
        sample(5.0, clock=9e9, heat=99.0, reasons={"sync_boost"}),
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


def test_device_that_says_nothing_has_blank_conditions() -> None:
    assert window_conditions([Sample(time_s=1.0)], start_s=0.0, end_s=2.0) == Conditions()
    assert window_conditions([], start_s=0.0, end_s=2.0) == Conditions()


@given(flags=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_shares_of_samples_lie_between_zero_and_one(flags: list[tuple[bool, bool]]) -> None:
    samples = [
        Sample(
            time_s=float(number),
            throttle_reasons=frozenset({"hw_thermal"} if is_hot else set()),
            power_limited=is_limited,
        )
        for number, (is_hot, is_limited) in enumerate(flags)
    ]
    found = window_conditions(samples, start_s=0.0, end_s=20.0)
    for share in (found.throttle_frac, found.power_limited_frac):
        assert (share is None) == (not flags)
        assert share is None or 0.0 <= share <= 1.0


def test_violation_counters_are_compared_and_a_reset_one_is_left_out() -> None:
    before = Baseline(violation_s={"thermal": 1.0, "power": 9.0, "board_limit": 2.0})
    after = Baseline(violation_s={"thermal": 1.5, "power": 0.1})
    assert violations_s(before, after=after) == {"thermal": 0.5}
