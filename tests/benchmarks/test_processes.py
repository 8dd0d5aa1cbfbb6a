"""How long whole `bench` processes take: on large files, and to start.

Run with `pytest tests/benchmarks/test_processes.py --benchmark-enable -s`. `compare` of 10,000 rows
may take 3 s and 400 MB, `report` of 2,000 8 s, start included; `--help` and `list` 10 and 15 times
as long as a bare interpreter; all take turns, so that what the machine does meanwhile falls on all.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.results.schema import COLUMNS, Row, Value
from tests.analysis.synthetic_rows import trials, write_csv
from tests.report.report_rows import DEVICES, WORKLOADS, configuration

ROOT = Path(__file__).resolve().parents[2]


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


def compared_rows(num: int, *, arm: int) -> Iterator[Row]:
    """Configurations of ten trials each."""
    cells = full_cells()
    for number in range(num // 10):
        yield from trials(
            num=10,
            seed=2 * number + arm,
            config_hash=f"{number:08x}",
            params_json=f'{{"batch": {number}}}',
            step_ms=100.0 * (1.0 + 0.1 * arm * (number % 3)),
            **cells,
        )


def reported_rows(num: int) -> Iterator[Row]:
    """Configurations over workloads and devices, no two with the same parameters."""
    names = [(workload, device) for workload in WORKLOADS for device in DEVICES]
    for number in range(num // 5):
        workload, device = names[number % len(names)]
        batch = 2 * (1 + number // len(names))
        params = json.dumps({"batch": batch, "patch": 64, "number": number})
        for row in configuration(workload, device, batch=batch, num=5):
            yield {**row, "config_hash": f"{number:08x}", "params_json": params}


def measured(*arguments: str, folder: Path) -> tuple[float, int]:
    """Seconds and the largest resident bytes of one Python process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, *arguments]
    started_s = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed_s = time.perf_counter() - started_s
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 1)  # 1: a regression, which these rows have
    return elapsed_s, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_many_rows_are_read_soon(tmp_path: Path) -> None:
    rows = [*(compared_rows(5_000, arm=arm) for arm in (0, 1)), reported_rows(2_000)]
    before, after, many = (
        str(write_csv(tmp_path / f"{number}.csv", one)) for number, one in enumerate(rows)
    )
    compare_s, compare_bytes = measured("-m", "bench", "compare", before, after, folder=tmp_path)
    report_s, _ = measured("-m", "bench", "report", many, folder=tmp_path)
    print(f"\ncompare {compare_s:.1f} s, {compare_bytes / 1e6:.0f} MB; report {report_s:.1f} s")
    assert compare_s < 3.0 and compare_bytes < 400e6
    assert report_s < 8.0


def test_start_of_help_and_list(tmp_path: Path) -> None:
    commands = {"bare": ["-c", "pass"], "--help": ["-m", "bench", "--help"],
                "list": ["-m", "bench", "list"]}  # fmt: skip
    found = [
        {name: measured(*words, folder=tmp_path)[0] for name, words in commands.items()}
        for _ in range(25)
    ]
    for name, limit in (("--help", 10.0), ("list", 15.0)):
        ratio = statistics.median(one[name] / one["bare"] for one in found)
        print(f"\nbench {name}: {ratio:.1f} times a bare interpreter (limit {limit:g})")
        assert ratio <= limit
