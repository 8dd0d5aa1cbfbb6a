"""Speed of `bench report` on 100,000 rows, against pandas reading and grouping the same file.

Run with `pytest tests/benchmarks --benchmark-enable`; the target is three times the bare pandas
time and under 1 GiB. In the normal suite each runs once, untimed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.results.schema import Row
from tests.analysis.synthetic_rows import write_csv
from tests.report.report_rows import DEVICES, WORKLOADS, configuration

NUM_ROWS = 100_000


def rows(num_configs: int, *, num_trials: int) -> Iterator[Row]:
    """Configurations over workloads and devices, no two with the same parameters."""
    names = [(workload, device) for workload in WORKLOADS for device in DEVICES]
    for number in range(num_configs):
        workload, device = names[number % len(names)]
        batch = 2 * (1 + number // len(names))
        params = json.dumps({"batch": batch, "patch": 64, "number": number})
        for row in configuration(workload, device, batch=batch, num=num_trials):
            yield {**row, "config_hash": f"{number:08x}", "params_json": params}


@pytest.fixture(scope="module", params=[5, 50], ids=lambda n: f"{n}_trials")
def path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    is_timed = request.config.getoption("--benchmark-enable", default=False)
    num_configs = NUM_ROWS // request.param if is_timed else 20
    folder = tmp_path_factory.mktemp("large")
    return write_csv(folder / "large.csv", rows(num_configs, num_trials=request.param))


def test_report(benchmark: Any, path: Path) -> None:
    output = path.with_name("report.html")
    code = benchmark.pedantic(
        lambda: main(["report", str(path), "-o", str(output)]), rounds=5, warmup_rounds=1
    )
    assert code == 0 and output.stat().st_size > 10_000


def test_bare_pandas(benchmark: Any, path: Path) -> None:
    import pandas as pd

    def read_and_group() -> int:
        read = pd.read_csv(path)
        return len(read.groupby(["workload", "config_hash", "status"])["step_median_ms"].median())

    assert benchmark.pedantic(read_and_group, rounds=5, warmup_rounds=1) >= 20
