"""Reasons and statuses: from the environment and from correctness, never from the speed."""

from dataclasses import replace

import pytest
from fake_device import ONE_ITEM

from bench.measure.timing import validity
from bench.measure.timing.limits import PROFILES, Limits
from bench.measure.timing.summary import trial_reasons
from bench.measure.timing.warmup import Warmup
from bench.measure.timing.window import Window
from bench.results.schema import REASONS


def window(step_s: list[float], *, wall_s: float | None = None, backwards: bool = False) -> Window:
    return Window(
        step_clock="host",
        start_s=100.0,
        end_s=100.0 + (sum(step_s) if wall_s is None else wall_s),
        step_s=step_s,
        counts=[ONE_ITEM] * len(step_s),
        clock_went_backwards=backwards,
    )


def reasons(
    measured: Window,
    *,
    converged: bool = True,
    limits: Limits | None = None,
    recompiled: bool = False,
    wait_frac: float = 0.0,
) -> list[str]:
    warmup = Warmup(step_s=[1.0], wall_s=2.0, has_converged=converged, recompiles=None)
    waited = replace(ONE_ITEM, data_wait_s=wait_frac * measured.wall_s)
    return trial_reasons(
        replace(measured, counts=[waited, *measured.counts[1:]]),
        warmup=warmup,
        limits=limits or Limits(),
        recompiled=recompiled,
    )


def test_good_window_has_no_reasons() -> None:
    assert reasons(window([0.5] * 20)) == []


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (window([0.5] * 19, wall_s=10.0), ["window_short"]),
        (window([0.4] * 20), ["window_short"]),
        (window([60.0] * 2), ["window_short", "few_samples"]),
        (window([0.5] * 10 + [0.516] * 10), ["drift"]),
        (window([0.516] * 10 + [0.5] * 10), ["drift"]),
        (window([0.5] * 10 + [0.514] * 10), []),
        (window([0.5] * 20, backwards=True), ["clock_backwards"]),
    ],
)
def test_windows_that_are_no_measurement_say_why(measured: Window, expected: list[str]) -> None:
    assert reasons(measured) == expected


def test_what_the_trial_noticed_is_a_reason() -> None:
    good = window([0.5] * 20)
    assert reasons(good, converged=False) == ["not_steady"]
    assert reasons(good, recompiled=True) == ["recompiled"]
    assert reasons(good, wait_frac=0.11) == ["input_bound"]
    assert reasons(good, wait_frac=0.10) == []
    starved = replace(good, host_bound_frac=0.51)
    assert reasons(starved) == ["host_bound"]
    assert reasons(starved, wait_frac=0.11) == ["input_bound"], "the loader is why"
    assert reasons(replace(good, host_bound_frac=0.5)) == []


def test_smoke_is_never_a_measurement() -> None:
    smoke = PROFILES["smoke"].limits
    assert reasons(window([0.5] * 4), limits=smoke, converged=False) == ["smoke"]
    assert reasons(window([30.0]), limits=smoke) == ["smoke", "few_samples"]


def test_every_reason_of_the_schema_has_one_status() -> None:
    sets = (validity.INVALIDATING, validity.FAILING, validity.SKIPPING)
    assert frozenset.union(*sets) <= REASONS.keys()
    assert sum(map(len, sets)) == len(frozenset.union(*sets))
    assert REASONS.keys() >= validity.RETRYABLE
    assert validity.status_of([]) == "OK"
    for code in REASONS:
        expected = "WARN"
        for status, codes in zip(("INVALID", "FAILED", "SKIPPED"), sets, strict=True):
            expected = status if code in codes else expected
        assert validity.status_of([code]) == expected


def test_gravest_reason_decides() -> None:
    assert validity.status_of(["smoke", "drift"]) == "WARN"
    assert validity.status_of(["drift", "nonfinite"]) == "INVALID"
    assert validity.status_of(["nonfinite", "interrupted"]) == "SKIPPED"
    assert validity.status_of(["interrupted", "crashed", "nonfinite"]) == "FAILED"


def test_wrong_results_are_not_tried_again_and_spoilt_ones_are() -> None:
    assert not {"nonfinite", "wrong_output", "out_of_memory", "unsupported_op", "error"} & (
        validity.RETRYABLE
    )
    assert {"thermal_throttle", "foreign_cpu_heavy", "crashed", "timeout"} <= validity.RETRYABLE


@pytest.mark.parametrize(
    ("foreign", "steal", "expected"),
    [
        (None, None, []),
        (0.05, 0.01, []),
        (0.051, None, ["foreign_cpu"]),
        (0.20, None, ["foreign_cpu"]),
        (0.201, 0.011, ["foreign_cpu_heavy", "steal"]),
    ],
)
def test_other_programs_are_judged_by_their_share(
    foreign: float | None, steal: float | None, expected: list[str]
) -> None:
    assert validity.cpu_reasons(foreign_frac=foreign, steal_frac=steal) == expected


def test_drift_compares_the_halves_and_needs_eight_steps() -> None:
    assert validity.drift_frac([1.0] * 7) is None
    assert validity.drift_frac([1.0] * 4 + [1.5] * 4) == pytest.approx(0.5)
    # Nine steps: four before, five after, of which 2.0 is the median.
    assert validity.drift_frac([1.0] * 4 + [9.0, 2.0, 2.0, 2.0, 1.0]) == pytest.approx(1.0)
    assert validity.drift_frac([0.0] * 8) is None
