"""Speed of `bench compare` on 100,000 rows, against pandas reading and grouping the same file.

Run with `pytest tests/benchmarks --benchmark-enable`; the target is three times the bare pandas
time and under 1 GiB. In the normal suite each runs once, untimed.
"""

from pathlib import Path
from typing import Any

import pytest

from bench.cli.compare import load_and_compare
from tests.analysis.synthetic_rows import trials, write_csv

NUM_CONFIGS = 10_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Path]:
    is_timed = request.config.getoption("--benchmark-enable", default=False)
    num_configs = NUM_CONFIGS if is_timed else 50
    folder = tmp_path_factory.mktemp("large")
    return [
        write_csv(
            folder / name,
            (
                row
                for i in range(num_configs)
                for row in trials(
                    seed=2 * i + arm,
                    config_hash=f"{i:08x}",
                    params_json=f'{{"batch": {i}}}',
                    step_ms=100.0 * (1.0 + 0.1 * arm * (i % 3)),
                )
            ),
        )
        for arm, name in enumerate(("a.csv", "b.csv"))
    ]


def test_compare(benchmark: Any, files: list[Path]) -> None:
    from bench.analysis.figures import Options

    comparison = benchmark.pedantic(
        lambda: load_and_compare(files, metric="time", options=Options()), rounds=3
    )
    assert len(comparison.rows) * 5 * 2 >= 500


def test_bare_pandas(benchmark: Any, files: list[Path]) -> None:
    import pandas as pd

    def read_and_group() -> int:
        read = pd.concat([pd.read_csv(path) for path in files])
        return len(read.groupby(["workload", "config_hash", "status"])["step_median_ms"].median())

    assert benchmark.pedantic(read_and_group, rounds=3) >= 50
