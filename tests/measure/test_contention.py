"""What contention adds to a step, on a clock that steps, waits and contention move."""

from types import SimpleNamespace

import pytest

from bench.measure.communication import modelled_link
from bench.measure.communication.communication import widened

STEP_S, WAIT_S = 0.010, 0.003


class Device:
    """Takes `STEP_S` a step, `WAIT_S` more where it is waited for, `contended_s` with units."""

    def __init__(self):
        self.device = SimpleNamespace(type="cuda")
        self.link = self
        self.now_s = 0.0
        self.units = 0
        self.contended_s = 0.002
        self.asked = []

    def monotonic(self):
        return self.now_s

    def step(self):
        self.now_s += STEP_S + (self.contended_s if self.units else 0.0)
        self.asked.append(self.units)

    def synchronize(self):
        self.now_s += WAIT_S

    def set_contention(self, units):
        self.units = units

    def take_traffic(self):
        return 4000, 3000


@pytest.fixture
def device(monkeypatch):
    made = Device()
    monkeypatch.setattr(modelled_link, "time", made)
    return made


def columns(device, *, contention="16", mode="emulated", period_steps=1):
    layout = SimpleNamespace(contention=contention, mode=mode)
    config = SimpleNamespace(layout=layout)
    link = modelled_link.ModelledLink(config, emulation=device, model=None)
    link.period_steps = period_steps
    return link.contended_columns(
        device.step, synchronize=device.synchronize, step_s=[STEP_S, STEP_S, 0.020]
    )


def test_waiting_for_the_device_is_not_taken_for_contention(device):
    assert columns(device) == {
        "contended_step_ms": pytest.approx(12.0),
        "contention_units": 16,
        "contention_moved_frac": 0.75,
    }
    assert device.asked[:4] == [0, 16, 0, 16] and device.units == 0
    device.contended_s = -0.001  # a busy machine makes contention no gain
    assert columns(device)["contended_step_ms"] == pytest.approx(10.0)


def test_a_mitigation_that_communicates_rarely_is_seen_whole(device):
    row = columns(device, period_steps=3)
    assert row["contended_step_ms"] == pytest.approx(40 / 3 + 2)
    assert device.asked[:6] == [0, 0, 0, 16, 16, 16]


def test_nothing_is_said_where_nothing_is_asked(device):
    assert columns(device, contention="none") == columns(device, mode="throttled") == {}
    assert device.asked == []


def test_the_upper_end_of_the_bracket_has_the_slow_link_and_contention():
    row = {"step_high_ms": 15.0, "simulated_step_ms": 11.0, "contended_step_ms": 13.0}
    assert widened(row)["step_high_ms"] == 17.0
    assert widened(row | {"contended_step_ms": 8.0})["step_high_ms"] == 15.0
    assert widened({"step_high_ms": 15.0}) == {"step_high_ms": 15.0}
