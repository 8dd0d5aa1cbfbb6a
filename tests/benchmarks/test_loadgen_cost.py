"""What LoadGen itself costs a query that is done at once; run with --benchmark-enable."""

import time
from pathlib import Path

import pytest

from bench.serve.mlperf.loadgen import SCENARIOS, LoadGenTest, Query, complete, run_test

pytest.importorskip("mlperf_loadgen", reason="LoadGen is not installed")
MOST_S = 30e-6


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_cost_of_a_query(scenario: str, tmp_path: Path) -> None:
    num, own_s = 0, 0.0

    def issue(queries: list[Query]) -> None:
        nonlocal num, own_s
        begins_s = time.perf_counter()
        num += len(queries)
        complete([identifier for identifier, _ in queries])
        own_s += time.perf_counter() - begins_s

    sample_s = 1e-6 if scenario == "mlperf-offline" else 1e-5
    known = {"num_samples": 64, "least_s": 1.0, "sample_s": sample_s, "rate_per_s": 2_000.0}
    begins_s = time.perf_counter()
    run_test(LoadGenTest(scenario=scenario, **known), issue=issue, folder=tmp_path)
    wall_s = time.perf_counter() - begins_s
    # A server's queries are waited for: of them only what the thread that brings them is kept.
    cost_s = (own_s if scenario == "mlperf-server" else wall_s) / num
    print(f"\n{scenario}: {1e6 * cost_s:.1f} us a query, {num} queries")
    assert cost_s < MOST_S
