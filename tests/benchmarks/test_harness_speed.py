"""The harness's own speed: what it costs beside what it measures.

`pytest tests/benchmarks --benchmark-enable` times each; in the normal suite each runs once on
little data. What is written per trial and read per file should stay far below a trial's seconds.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.statistics import batch_means_half_width_frac, mean_interval_log
from bench.measure.inspection import FAKE, Inspection
from bench.results.reader import read_rows
from bench.results.schema import Row
from bench.results.store import Sidecar, Store
from bench.run.planning.checks import check_request
from bench.run.planning.plan import make_plan
from bench.run.planning.request import RunRequest
from tests.analysis.synthetic_rows import trials, write_csv


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    sidecar = Sidecar(run_id="run1", started_utc="2026-01-02T03:04:05Z", environment={}, request={})
    with Store.create(tmp_path, sidecar=sidecar, host_hash="0123456789abcdef") as store:
        yield store


def test_append_a_row_and_wait_for_the_disk(benchmark: Any, store: Store) -> None:
    (row,) = trials(num=1)
    benchmark(store.append, row)
    assert store.rows()[0]["step_median_ms"] == row["step_median_ms"]


def test_read_rows_exactly(benchmark: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    num = 10_000 if request.config.getoption("--benchmark-enable", default=False) else 20
    made = trials(num=num, energy_per_item_j=1.5, device_name='A "quoted", name')
    file = write_csv(tmp_path / "large.csv", made)
    rows: list[Row] = benchmark.pedantic(read_rows, args=(file,), rounds=3)
    assert len(rows) == num


def test_half_width_of_twenty_thousand_correlated_steps(benchmark: Any) -> None:
    noise = np.random.default_rng(0).standard_normal(20_000)
    for index in range(1, len(noise)):
        noise[index] += 0.5 * noise[index - 1]
    step_s = [float(value) for value in 0.1 + 0.001 * noise]
    half_width_frac = benchmark(batch_means_half_width_frac, step_s)
    # Mean of 20,000 steps with sd 0.001 and autocorrelation 0.5: 1.96 x 0.002 / sqrt(20000) / 0.1
    assert half_width_frac == pytest.approx(2.8e-4, rel=0.4)


def test_interval_over_trials(benchmark: Any) -> None:
    interval = benchmark(mean_interval_log, [1.0, 1.1, 0.9, 1.05, 0.95])
    assert interval[1] < interval[0] < interval[2]


def test_plan_a_sweep(benchmark: Any) -> None:
    request = RunRequest(
        workloads=("imaging", "llm"),
        sizes=("tiny", "small"),
        batches=(1, 2, 4, 8),
        dtypes=("fp32", "bf16"),
        device="fake",
    )
    inspection = Inspection(device=FAKE, capabilities={})
    plan = benchmark(
        lambda: make_plan(request, selected=check_request(request), inspection=inspection)
    )
    assert len(plan.planned) == 5 * 2 * 4 * 2
