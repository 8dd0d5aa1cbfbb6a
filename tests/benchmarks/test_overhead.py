"""What the harness adds to a step, against a loop written by hand; and whether it shows the time.

Run with `pytest tests/benchmarks/test_overhead.py --benchmark-enable -s`, on a machine that does
nothing else; without the flag they are skipped. Both sides run in one process and take turns, so
that whatever the machine does meanwhile falls on both.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import discovery
from bench.core.nouns import Config
from bench.measure.messages import TrialRequest
from bench.measure.timing.clock import HostClock
from bench.measure.timing.limits import PROFILES
from bench.measure.timing.window import measured_enough, run_window
from tests.benchmarks.conftest import Report, interleaved_ratios
from tests.measure.trial_requests import request_of

pytestmark = pytest.mark.usefixtures("only_when_timed")
ROOT = Path(__file__).resolve().parents[2]
PAIRS = 200
BLOCK_S = 0.1
"""Short, so that on a busy machine most blocks are undisturbed and the median is of those."""

SecondsPerStep = Callable[[int], float]
MakeStep = Callable[[Any, Any, Any], Callable[[], None]]


def by_harness(request: TrialRequest) -> SecondsPerStep:
    """Time steps as a trial does: its engine, its window."""
    from bench.measure.engine.torch_engine import TorchEngine

    engine = TorchEngine(request)
    engine.build()

    rule = measured_enough(request.limits)

    def seconds_per_step(num_steps: int) -> float:
        def should_stop(elapsed_s: float, step_s: list[float]) -> bool:
            rule(elapsed_s, step_s)  # what it costs in a trial, where it ends the window
            return len(step_s) >= num_steps

        window = run_window(engine, clock=HostClock(), should_stop=should_stop)
        return window.wall_s / len(window.counts)

    return seconds_per_step


def by_hand(config: Config, make_step: MakeStep) -> SecondsPerStep:
    """Time steps as one does without a harness: a loop between two readings of the clock."""
    import torch

    found = discovery.load(config.workload)
    workload = discovery.instance(found, size=config.size, overrides={})
    phase = found.phase(config.phase)
    torch.manual_seed(0)
    net = workload.build_net()
    loader = torch.utils.data.DataLoader(
        workload.dataset(phase, data=None, seed=0),  # type: ignore[arg-type]
        batch_size=workload.batch_size(phase),
        shuffle=phase.is_training,
        drop_last=phase.is_training,
        collate_fn=workload.collate(phase),
    )
    step = make_step(workload, net, loader)

    def seconds_per_step(num_steps: int) -> float:
        start_s = time.perf_counter()
        for _ in range(num_steps):
            step()
        return (time.perf_counter() - start_s) / num_steps

    return seconds_per_step


def training_step(workload: Any, net: Any, loader: Any) -> Callable[[], None]:
    import torch

    net.train()
    optimizer = workload.optimizer(net)
    schedule = workload.schedule(optimizer)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad(set_to_none=True)
        workload.loss(net, batch).backward()
        if workload.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), workload.max_grad_norm)
        optimizer.step()
        if schedule is not None:
            schedule.step()

    return step


def inference_step(workload: Any, net: Any, loader: Any) -> Callable[[], None]:
    import torch

    net.eval()
    batch = next(iter(loader))

    def step() -> None:
        with torch.inference_mode():
            workload.infer(net, batch)

    return step


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "make_step", "limit_frac"),
    [("sleep-infer", inference_step, 0.01), ("imaging-train", training_step, 0.03)],
)
def test_harness_adds_next_to_nothing(
    benchmark: Any,
    report: Report,
    name: str,
    make_step: MakeStep,
    limit_frac: float,
) -> None:
    import torch

    torch.set_num_threads(1)
    request = request_of(name, data="generated", limits=PROFILES["default"].limits)
    harness, hand = by_harness(request), by_hand(request.config, make_step)
    num_steps = max(3, round(BLOCK_S / harness(8)))
    hand(num_steps)
    sides = (lambda: harness(num_steps)), (lambda: hand(num_steps))
    ratios = benchmark.pedantic(
        lambda: interleaved_ratios(*sides, fewest=PAIRS, measured_s=0.0), rounds=1
    )
    assert abs(report(f"{name} tiny: harness / hand-written", ratios) - 1) <= limit_frac


@pytest.mark.timeout(600)
def test_known_time_is_reported_within_half_a_percent(
    benchmark: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "bench", "run", "--workload", "sleep-infer", "--size", "base"]
            + ["--device", "cpu", "--threads", "1", "--trials", "1", "--json"]
            + ["--out", str(tmp_path)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        row: dict[str, Any] = json.loads(done.stdout)["rows"][-1]
        return row

    row = benchmark.pedantic(run, rounds=1)
    with capsys.disabled():
        print(
            f"\nsleep-infer base, 100 ms a step: median {row['step_median_ms']:.4f} ms, "
            f"throughput {row['throughput_per_s']:.5f}/s, {row['status']} {row['reasons'] or ''}"
        )
    assert row["step_median_ms"] == pytest.approx(100.0, rel=0.005)
    if row["status"] == "OK":
        # Where other programs took the processor away, steps really were longer, and it says so.
        assert row["throughput_per_s"] == pytest.approx(10.0, rel=0.005)
