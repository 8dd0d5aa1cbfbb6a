"""From a window to columns, reasons and a status, against figures worked out by hand.

Reasons come from the environment and from correctness, never from the speed. What contention adds
to a step is seen on a clock that steps, waits and contention move.
"""

from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fake_device import ONE_ITEM

from bench.measure.communication import modelled_link
from bench.measure.engine.engine import StepCount
from bench.measure.timing import summary, validity
from bench.measure.timing.limits import PROFILES, Limits
from bench.measure.timing.warmup import Warmup
from bench.measure.timing.window import Window
from bench.results.schema import REASONS
from bench.workload import TRAIN, Phase
from tests.measure.trial_requests import request_of


def window(step_s: list[float], *, wall_s: float | None = None, **count: Any) -> Window:
    whole = {"items": 4, "elements": None, "flops": None, "data_wait_s": 0.0, **count}
    return Window(
        step_clock="host",
        start_s=50.0,
        end_s=50.0 + (sum(step_s) if wall_s is None else wall_s),
        step_s=step_s,
        counts=[StepCount(**whole)] * len(step_s),
    )


def test_speed_is_items_over_the_whole_window() -> None:
    row = summary.speed_columns(window([0.1, 0.2, 0.3, 0.4], wall_s=1.25))
    assert (row["items"], row["steps"], row["window_s"]) == (16, 4, 1.25)
    assert row["throughput_per_s"] == pytest.approx(12.8)
    # Linear interpolation between order statistics, at 0.05 x 3 and 0.95 x 3.
    names = ("step_median_ms", "step_mean_ms", "step_p05_ms", "step_p95_ms", "step_iqr_ms")
    assert [row[name] for name in names] == pytest.approx([250.0, 250.0, 115.0, 385.0, 150.0])
    for name in ("rel_ci95_frac", "drift_rise_frac"):
        assert row[name] is None, "four steps are too few"
    for name in ("host_gap_frac", "elements_per_s", "flops_per_item", "flops_method"):
        assert row[name] is None, "no events, not known"
    counted = summary.speed_columns(window([0.5] * 4, wall_s=2.0, elements=400, flops=8e9))
    assert (counted["elements_per_item"], counted["elements_per_s"]) == (100.0, 800.0)
    assert (counted["flops_per_item"], counted["flops_method"]) == (2e9, "analytic")
    by_events = replace(window([0.5] * 4, wall_s=2.5), step_clock="event")
    assert summary.speed_columns(by_events)["host_gap_frac"] == pytest.approx(0.2)
    measured = window([0.5] * 4, data_wait_s=0.125)
    assert summary.wait_columns(measured, uses_loader=False) == {}
    waited = summary.wait_columns(measured, uses_loader=True)
    assert waited == {"data_wait_s": 0.5, "data_wait_frac": 0.25}


def test_volumes_of_mixed_size_are_named_and_judged_by_size() -> None:
    small, large = (StepCount(items=1, elements=size, flops=None) for size in (9216, 248832))
    for resident, *expected in (
        ([small, small, large], 3, "2 of 9216; 1 of 248832"),
        ([small] * 4, 4, None),
        ([], None, None),
    ):
        assert list(summary.item_columns(resident).values()) == expected
    row = summary.speed_columns(
        replace(window([0.05, 0.05, 0.5] * 20), counts=[small, small, large] * 20)
    )
    assert row["step_median_ms"] == pytest.approx(50.0)
    assert row["throughput_per_s"] == pytest.approx(5.0), "60 volumes in 12 s"
    assert row["elements_per_item"] == pytest.approx((2 * 9216 + 248832) / 3)
    assert row["rel_ci95_frac"] == pytest.approx(0.0, abs=1e-9)
    assert row["drift_half_width_frac"] == pytest.approx(0.0, abs=1e-9)


def latency(measured: Window, *, kind: str | None = None, sequences: int = 4) -> dict[str, Any]:
    phase = Phase(name="any", item="token", latency=kind)
    return dict(summary.latency_columns(measured, phase=phase, sequences=sequences))


def test_latency_percentiles_need_their_count_and_tokens_have_their_columns() -> None:
    steps = [0.001 * (index + 1) for index in range(100)]
    row = latency(window(steps))
    # 100 samples at 0.9: P(Binomial(100, 0.1) <= 3) = 0.0078, <= 4: 0.024; so 3 are discarded.
    assert (row["lat_n"], row["lat_p50_ms"], row["lat_p90_ms"]) == pytest.approx((100, 50.5, 97))
    assert row["lat_p99_ms"] is latency(window(steps[:63]))["lat_p90_ms"] is None
    assert summary.latency_columns(window(steps), phase=TRAIN, sequences=4) == {}
    prefill = latency(window([0.2] * 10, wall_s=2.5, items=2048), kind="ttft")
    assert (prefill["ttft_ms"], prefill["prefill_tok_per_s"]) == pytest.approx((200.0, 8192.0))
    # 64 tokens a step for 4 sequences: 16 tokens one after the other in 200 ms. Two replicas make
    # more tokens together, and none of them sooner.
    for items, sequences in ((64, 4), (128, 8)):
        measured = window([0.2] * 10, wall_s=2.5, items=items)
        decode = latency(measured, kind="tpot", sequences=sequences)
        expected = (12.5, items * 4.0)
        assert (decode["tpot_ms"], decode["decode_tok_per_s"]) == pytest.approx(expected)
        assert "prefill_tok_per_s" not in decode


def test_cold_costs_are_columns_and_compiling_is_the_first_step_beyond_the_others() -> None:
    config = request_of("sleep-infer", compile=True).config
    warmup = Warmup(step_s=[9.0, 0.5, 0.5], wall_s=1.0, has_converged=True, recompiles=1)
    cold_s = {"import": 2.0, "build": 3.0}
    row = summary.cold_columns(warmup, cold_s=cold_s, config=config, step_s=[0.5])
    assert (row["import_s"], row["build_s"], row["transfer_s"]) == (2.0, 3.0, None)
    assert (row["first_step_s"], row["compile_s"], row["recompiles"]) == (9.0, 8.5, 1)
    assert (row["warmup_steps"], row["warmup_s"], row["warmup_converged"]) == (3, 1.0, True)


def reasons(
    measured: Window, *, converged: bool = True, recompiled: bool = False, profile: str = "default"
) -> list[str]:
    warmup = Warmup(step_s=[1.0], wall_s=2.0, has_converged=converged, recompiles=None)
    limits = PROFILES[profile].limits
    found = summary.trial_problems(measured, warmup=warmup, limits=limits, recompiled=recompiled)
    return [code for code, _ in found]


GOOD = window([0.5] * 20)
NOISY = window([0.4, 0.6, 0.3, 0.8, 0.5, 0.7, 0.2, 0.6, 0.4, 0.5] * 3)


def test_windows_that_are_no_measurement_say_why() -> None:
    assert Limits() == PROFILES["default"].limits
    starved = replace(GOOD, host_bound_frac=0.51)
    assert summary.speed_columns(starved)["host_bound_frac"] == 0.51
    late = window([0.5] * 20, data_wait_s=0.055)
    for found, expected in (
        (reasons(GOOD), []),
        (reasons(window([0.5] * 19, wall_s=10.0)), ["window_short"]),
        (reasons(window([0.14] * 20)), ["window_short"]),
        (reasons(window([60.0] * 2)), ["window_short", "few_samples"]),
        (reasons(window([0.5] * 20 + [0.516] * 20)), ["drift"]),
        (reasons(window([0.516] * 20 + [0.5] * 20)), ["drift"]),
        (reasons(window([0.5] * 20 + [0.506] * 20)), []),
        (reasons(NOISY), ["noisy"]),
        (reasons(replace(GOOD, clock_went_backwards=True)), ["clock_backwards"]),
        (reasons(GOOD, converged=False), ["not_steady"]),
        (reasons(GOOD, recompiled=True), ["recompiled"]),
        (reasons(late), ["input_bound"]),
        (reasons(window([0.625] * 20, data_wait_s=0.0625)), []),
        (reasons(starved), ["host_bound"]),
        (reasons(replace(late, host_bound_frac=0.51)), ["input_bound"]),  # the loader is why
        (reasons(replace(GOOD, host_bound_frac=0.5)), []),
        (reasons(NOISY, profile="smoke"), ["smoke"]),
        # Smoke is never a measurement.
        (reasons(window([0.5] * 4), converged=False, profile="smoke"), ["smoke"]),
        (reasons(window([30.0]), profile="smoke"), ["smoke", "few_samples"]),
    ):
        assert found == expected, expected


def test_every_reason_of_the_schema_has_one_status_and_the_gravest_decides() -> None:
    sets = (validity.INVALIDATING, validity.FAILING, validity.SKIPPING, validity.LABELS)
    assert frozenset.union(*sets) <= REASONS.keys()
    assert sum(map(len, sets)) == len(frozenset.union(*sets))
    assert validity.status_of([]) == "OK"
    for code in REASONS:
        expected = "WARN"
        for status, codes in zip(("INVALID", "FAILED", "SKIPPED", "OK"), sets, strict=True):
            expected = status if code in codes else expected
        assert validity.status_of([code]) == expected
    assert validity.status_of(["smoke", "drift"]) == "WARN"
    assert validity.status_of(["noisy", "drift"]) == "WARN"
    assert validity.status_of(["drift", "nonfinite"]) == "INVALID"
    assert validity.status_of(["nonfinite", "interrupted"]) == "SKIPPED"
    assert validity.status_of(["interrupted", "crashed", "nonfinite"]) == "FAILED"
    # Wrong results are not tried again and spoilt ones are.
    refused = {"nonfinite", "wrong_output", "out_of_memory", "unsupported_op", "error"}
    assert not refused & validity.RETRYABLE
    spoilt = {"thermal_throttle", "foreign_cpu_heavy", "crashed", "timeout"}
    assert spoilt <= validity.RETRYABLE <= REASONS.keys()


def test_other_programs_are_judged_by_their_share() -> None:
    for foreign, steal, expected in (
        (None, None, []),
        (0.05, 0.01, []),
        (0.051, None, ["foreign_cpu"]),
        (0.20, None, ["foreign_cpu"]),
        (0.201, 0.011, ["foreign_cpu_heavy", "steal"]),
    ):
        assert validity.cpu_reasons(foreign_frac=foreign, steal_frac=steal) == expected, foreign


STEP_S, WAIT_S = 0.010, 0.003


class Device:
    """Takes `STEP_S` a step, `WAIT_S` more where it is waited for, `contended_s` with units."""

    device = SimpleNamespace(type="cuda")
    now_s = 0.0
    units = 0
    contended_s = 0.002
    step_s = STEP_S

    def __init__(self):
        self.link = self
        self.asked = []

    def monotonic(self):
        return self.now_s

    def step(self):
        self.now_s += self.step_s + (self.contended_s if self.units else 0.0)
        self.asked.append(self.units)

    def begin_step(self): ...

    def end_step(self):
        return SimpleNamespace(trace=None)

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


def linked(device, *, contention="16", mode="emulated", period_steps=1):
    mitigate = f"diloco-{period_steps}" if period_steps > 1 else ""
    layout = SimpleNamespace(contention=contention, mode=mode, link="infinite", mitigate=mitigate)
    does = {"step": device.step, "synchronize": device.synchronize}
    link = modelled_link.ModelledLink(layout, emulation=device, model=None, **does)
    link.period_steps = period_steps
    return link


def contended(device, **kind):
    row = {"step_high_ms": 15.0}
    return linked(device, **kind).contended_columns((STEP_S, STEP_S, 0.020), row=row)


def test_waiting_for_the_device_is_not_taken_for_contention(device):
    assert contended(device) == {
        "contended_step_ms": pytest.approx(12.0),
        "step_high_ms": pytest.approx(15.0 + 2.0),  # the slow link and contention
        "contention_units": 16,
        "contention_moved_frac": 0.75,
    }
    assert device.asked[:4] == [0, 16, 0, 16] and device.units == 0
    # A mitigation that communicates rarely is seen whole.
    device.asked.clear()
    row = contended(device, period_steps=3)
    assert row["contended_step_ms"] == pytest.approx(40 / 3 + 2)
    assert device.asked[:6] == [0, 0, 0, 16, 16, 16]
    device.contended_s = -0.001  # a busy machine makes contention no gain
    row = contended(device)
    assert (row["contended_step_ms"], row["step_high_ms"]) == pytest.approx((10.0, 15.0))
    device.asked.clear()
    for without in ({"contention": "none"}, {"mode": "throttled"}):
        assert contended(device, **without) == {}
    device.device = SimpleNamespace(type="cpu")
    assert contended(device) == {}
    assert device.asked == [], "nothing is said where nothing is asked"


@pytest.mark.parametrize(
    ("step_s", "is_smoke", "traced", "pairs", "most_s"),
    [(0.7, False, 5, 4, 9.5), (0.056, False, 30, 24, 5.0), (0.7, True, 1, 2, 4.0)],
)
def test_what_follows_a_window_is_bounded(device, step_s, is_smoke, traced, pairs, most_s):
    """A step of 0.7 s took 20 s after its window, however short that was."""
    device.step_s = step_s
    link = linked(device)
    link.is_smoke = is_smoke
    tracing = link.tracing_afterwards()
    next(tracing)
    with suppress(StopIteration):
        while True:
            device.step()
            tracing.send(ONE_ITEM)
    assert len(link.traces.kept) == traced == len(device.asked)
    added = link.contended_columns([step_s], row={"step_high_ms": 1e3 * step_s})
    assert added["contended_step_ms"] == pytest.approx((step_s + device.contended_s) * 1e3)
    assert len(device.asked) == traced + 2 * pairs
    assert device.now_s < most_s
