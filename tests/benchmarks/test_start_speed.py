"""How long `bench --help` and `bench list` take to start, against a bare interpreter.

Run with `pytest tests/benchmarks/test_start_speed.py --benchmark-enable -s`; limits 10 and 15
times. The three take turns, so that whatever the machine does meanwhile falls on all. In the normal
suite each starts once, untimed.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 25
COMMANDS = {
    "bare": [sys.executable, "-c", "pass"],
    "--help": [sys.executable, "-m", "bench", "--help"],
    "list": [sys.executable, "-m", "bench", "list"],
}
LIMITS = {"--help": 10.0, "list": 15.0}


def start_s(arguments: list[str]) -> float:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started_s = time.perf_counter()
    subprocess.run(arguments, stdout=subprocess.DEVNULL, env=environment, check=True)
    return time.perf_counter() - started_s


def interleaved_s(rounds: int) -> dict[str, list[float]]:
    times_s: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            times_s[name].append(start_s(arguments))
    return times_s


def test_start_of_help_and_list(
    benchmark: Any, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    is_timed = request.config.getoption("--benchmark-enable")
    times_s = benchmark.pedantic(lambda: interleaved_s(ROUNDS if is_timed else 1), rounds=1)
    if not is_timed:
        assert all(len(values) == 1 for values in times_s.values())
        return
    bare_s = statistics.median(times_s["bare"])
    for name, limit in LIMITS.items():
        ratios = [value / bare for value, bare in zip(times_s[name], times_s["bare"], strict=True)]
        ratio = statistics.median(ratios)
        with capsys.disabled():
            print(
                f"\nbench {name}: {1e3 * statistics.median(times_s[name]):.0f} ms, "
                f"bare interpreter {1e3 * bare_s:.0f} ms, ratio {ratio:.1f} (limit {limit:g})"
            )
        assert ratio <= limit
