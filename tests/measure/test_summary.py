"""Columns of a row from a window, against figures worked out by hand."""

from typing import Any

import pytest

from bench.measure.engine.engine import StepCount
from bench.measure.timing.summary import cold_columns, latency_columns, speed_columns, wait_columns
from bench.measure.timing.warmup import Warmup
from bench.measure.timing.window import StepClock, Window
from bench.workload import TRAIN, Phase
from tests.measure.trial_requests import request_of


class FourRows:
    def batch_size(self, phase: Phase) -> int:
        return 4


FOUR: Any = FourRows()


def window(
    step_s: list[float], *, wall_s: float, clock: StepClock = "host", **count: Any
) -> Window:
    whole = {"items": 4, "elements": None, "flops": None, "data_wait_s": 0.0, **count}
    return Window(
        step_clock=clock,
        start_s=50.0,
        end_s=50.0 + wall_s,
        step_s=step_s,
        counts=[StepCount(**whole)] * len(step_s),
    )


def test_speed_is_items_over_the_whole_window() -> None:
    row = speed_columns(window([0.1, 0.2, 0.3, 0.4], wall_s=1.25))
    assert (row["items"], row["steps"], row["window_s"]) == (16, 4, 1.25)
    assert row["throughput_per_s"] == pytest.approx(12.8)
    assert row["step_median_ms"] == pytest.approx(250.0)
    assert row["step_mean_ms"] == pytest.approx(250.0)
    # Linear interpolation between order statistics, at 0.05 x 3 and 0.95 x 3.
    assert row["step_p05_ms"] == pytest.approx(115.0)
    assert row["step_p95_ms"] == pytest.approx(385.0)
    assert row["step_iqr_ms"] == pytest.approx(150.0)
    assert row["rel_ci95_frac"] is None, "four steps does not know how well their mean is known"
    assert row["drift_frac"] is None
    assert "host_gap_frac" not in row, "the host clock has no gaps"
    assert "elements_per_s" not in row and "flops_per_item" not in row


def test_elements_and_work_follow_from_the_counts() -> None:
    row = speed_columns(window([0.5] * 4, wall_s=2.0, elements=400, flops=8e9))
    assert row["elements_per_item"] == 100.0
    assert row["elements_per_s"] == 800.0
    assert row["flops_per_item"] == 2e9
    assert row["flops_method"] == "analytic"


def test_gap_between_device_events_is_shown() -> None:
    row = speed_columns(window([0.5] * 4, wall_s=2.5, clock="event"))
    assert row["host_gap_frac"] == pytest.approx(0.2)


def test_waiting_is_blank_without_a_loader() -> None:
    measured = window([0.5] * 4, wall_s=2.0, data_wait_s=0.125)
    assert wait_columns(measured, uses_loader=False) == {}
    assert wait_columns(measured, uses_loader=True) == {"data_wait_s": 0.5, "data_wait_frac": 0.25}


def test_latency_percentiles_are_blank_under_their_least_count() -> None:
    infer = Phase(name="infer", item="sample")
    steps = [0.001 * (index + 1) for index in range(100)]
    row = latency_columns(window(steps, wall_s=6.0), workload=FOUR, phase=infer)
    assert (row["lat_n"], row["lat_p50_ms"]) == (100, pytest.approx(50.5))
    # 100 samples at 0.9: P(Binomial(100, 0.1) <= 3) = 0.0078, <= 4: 0.024; so 3 are discarded.
    assert row["lat_p90_ms"] == pytest.approx(97.0)
    assert row["lat_p99_ms"] is None
    few = latency_columns(window(steps[:63], wall_s=6.0), workload=FOUR, phase=infer)
    assert few["lat_p90_ms"] is None
    assert latency_columns(window(steps, wall_s=6.0), workload=FOUR, phase=TRAIN) == {}


def test_first_token_and_each_token_have_their_columns() -> None:
    prefill = Phase(name="prefill", item="token", latency="ttft")
    row = latency_columns(window([0.2] * 10, wall_s=2.5, items=2048), workload=FOUR, phase=prefill)
    assert row["ttft_ms"] == pytest.approx(200.0)
    assert row["prefill_tok_per_s"] == pytest.approx(8192.0)
    decode = Phase(name="decode", item="token", latency="tpot")
    row = latency_columns(window([0.2] * 10, wall_s=2.5, items=64), workload=FOUR, phase=decode)
    # 64 tokens a step for 4 sequences: 16 tokens one after the other in 200 ms.
    assert row["tpot_ms"] == pytest.approx(12.5)
    assert row["decode_tok_per_s"] == pytest.approx(256.0)
    assert "prefill_tok_per_s" not in row


def test_replicas_together_make_more_tokens_and_none_of_them_sooner() -> None:
    decode = Phase(name="decode", item="token", latency="tpot")
    both = window([0.2] * 10, wall_s=2.5, items=128)
    row = latency_columns(both, workload=FOUR, phase=decode, num_replicas=2)
    assert row["tpot_ms"] == pytest.approx(12.5)
    assert row["decode_tok_per_s"] == pytest.approx(512.0)


def test_cold_costs_are_columns_and_compiling_is_the_first_step_beyond_the_others() -> None:
    config = request_of("sleep-infer", compile=True).config
    warmup = Warmup(step_s=[9.0, 0.5, 0.5], wall_s=1.0, has_converged=True, recompiles=1)
    row = cold_columns(warmup, cold_s={"import": 2.0, "build": 3.0}, config=config, step_s=[0.5])
    assert (row["import_s"], row["build_s"], row["transfer_s"]) == (2.0, 3.0, None)
    assert (row["first_step_s"], row["compile_s"], row["recompiles"]) == (9.0, 8.5, 1)
    assert (row["warmup_steps"], row["warmup_s"], row["warmup_converged"]) == (3, 1.0, True)
