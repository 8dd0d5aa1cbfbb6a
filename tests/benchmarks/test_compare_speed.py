"""Speed of `bench compare` on 100,000 rows, against pandas reading and grouping the same file.

Run with `pytest tests/benchmarks --benchmark-enable`; the target is three times the bare pandas
time and under 1 GiB. In the normal suite each runs once, untimed.
"""

import random
from pathlib import Path
from typing import Any

import pytest

from bench.cli.compare import load_and_compare
from bench.results.schema import COLUMNS, Value
from tests.analysis.synthetic_rows import trials, write_csv

NUM_ROWS = 50_000
"""Rows of each of the two files."""


def full_cells() -> dict[str, Value]:
    """A value for every measured column, as a row of an accelerator has: files are not blank."""
    source = random.Random(1)
    cells: dict[str, Value] = {}
    for column in COLUMNS:
        if column.kind in ("int", "float") and column.group not in ("identity", "what ran"):
            number = source.random() * 1e3
            cells[column.name] = number if column.kind == "float" else round(number) + 1
        elif column.group == "where" and column.kind == "str":
            cells[column.name] = f"{column.name} 1.2.3"
    for name in ("step_median_ms", "window_s", "throughput_per_s"):
        del cells[name]  # drawn for each trial
    return cells


FULL_CELLS = full_cells()


@pytest.fixture(scope="module", params=[1_000, 10_000], ids=lambda n: f"{n}_configurations")
def files(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[Path]:
    is_timed = request.config.getoption("--benchmark-enable", default=False)
    num_configs = request.param if is_timed else 50
    num_trials = NUM_ROWS // request.param
    folder = tmp_path_factory.mktemp("large")
    return [
        write_csv(
            folder / name,
            (
                row
                for i in range(num_configs)
                for row in trials(
                    num=num_trials,
                    seed=2 * i + arm,
                    config_hash=f"{i:08x}",
                    params_json=f'{{"batch": {i}}}',
                    step_ms=100.0 * (1.0 + 0.1 * arm * (i % 3)),
                    **FULL_CELLS,  # type: ignore[arg-type]
                )
            ),
        )
        for arm, name in enumerate(("a.csv", "b.csv"))
    ]


def test_compare(benchmark: Any, files: list[Path]) -> None:
    from bench.analysis.figures import Options

    comparison = benchmark.pedantic(
        lambda: load_and_compare(files, metric="time", options=Options()), rounds=5
    )
    assert len(comparison.rows) >= 50


def test_bare_pandas(benchmark: Any, files: list[Path]) -> None:
    import pandas as pd

    def read_and_group() -> int:
        read = pd.concat([pd.read_csv(path) for path in files])
        return len(read.groupby(["workload", "config_hash", "status"])["step_median_ms"].median())

    assert benchmark.pedantic(read_and_group, rounds=5) >= 50
