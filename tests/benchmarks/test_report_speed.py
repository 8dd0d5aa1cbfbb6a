"""Speed of `bench report` on 100,000 rows, against pandas reading and grouping the same file.

Run with `pytest tests/benchmarks --benchmark-enable`; the target is three times the bare pandas
time and under 1 GiB. In the normal suite each runs once, untimed.
"""

from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from tests.analysis.synthetic_rows import write_csv
from tests.report.report_rows import many_rows

NUM_CONFIGS = 20_000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    is_timed = request.config.getoption("--benchmark-enable", default=False)
    folder = tmp_path_factory.mktemp("large")
    return write_csv(folder / "large.csv", many_rows(NUM_CONFIGS if is_timed else 50))


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

    assert benchmark.pedantic(read_and_group, rounds=5, warmup_rounds=1) >= 50
