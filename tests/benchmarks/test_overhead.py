"""What the harness adds to a step, against a loop written by hand; and whether it tells the time.

Run with `pytest tests/benchmarks/test_overhead.py --benchmark-enable -s`, on a machine that does
nothing else; without the flag they are skipped. Both sides run in one process and take turns, so
that whatever the machine does meanwhile falls on both.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import discovery
from bench.core.nouns import Config
from bench.measure.clock import HostClock
from bench.measure.limits import PROFILES
from bench.measure.request import TrialRequest
from bench.measure.window import run_window

ROOT = Path(__file__).resolve().parents[2]
PAIRS = 40
BLOCK_S = 0.5

SecondsPerStep = Callable[[int], float]


@pytest.fixture(autouse=True)
def only_when_timed(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("a measurement of a minute; run it with --benchmark-enable")


def config_of(name: str, size: str) -> Config:
    workload_name, _, phase = name.partition("-")
    found = discovery.load(workload_name)
    workload = discovery.instance(found, size=size, overrides={})
    return Config(
        workload=workload_name,
        source="",
        phase=phase,
        version=found.version,
        size=size,
        params=discovery.parameters(workload),
        dtype="fp32",
        compile=False,
        channels_last=False,
        data="generated",
        device="cpu",
        threads=1,
        workers=0,
        seed=0,
    )


def by_harness(config: Config) -> SecondsPerStep:
    """Time steps as a trial does: its engine, its window."""
    from bench.measure.torch_engine import TorchEngine

    request = TrialRequest(
        config=config,
        limits=PROFILES["default"].limits,
        trial=0,
        cpu_ids=(),
        threads=1,
        workers=0,
        idle_s=0.0,
    )
    engine = TorchEngine(request, on_stage=lambda _name: None)
    engine.build()

    def seconds_per_step(num_steps: int) -> float:
        count = iter(range(num_steps))
        window = run_window(
            _Counted(engine, count), clock=HostClock(), should_stop=lambda _s, _steps: False
        )
        return window.wall_s / num_steps

    return seconds_per_step
