"""What `bench wrap` says of a program, against the program's own clock, and what its hooks cost.

Run with `pytest tests/benchmarks/test_wrap.py --benchmark-enable -s`, on a machine that does
nothing else; without the flag they are skipped. Whole processes take turns, A B B A, so that what
the machine does meanwhile falls on both. A trial is started as `bench wrap` starts it, without the
look before it and without what comes after it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.nouns import Script, StepMark
from bench.measure.messages import TrialRequest, TrialResult
from bench.measure.timing.limits import PROFILES
from bench.run.launching.script import run_script
from bench.run.planning.wrap_plan import config_of

pytestmark = pytest.mark.timeout(1800)
ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "wrap" / "programs"
SETTLED_S = 2.0
"""Of each process: not looked at, as a warm-up is not."""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def wrapped(*command: str, step: StepMark = "optimizer") -> TrialResult:
    """Measure a program in one trial of the quick profile."""
    config = config_of("program", script=Script(step=step), phase="train", device="cpu")
    request = TrialRequest(
        config=config,
        limits=PROFILES["quick"].limits,
        trial=0,
        cpu_ids=(),
        threads=1,
        workers=0,
        idle_s=0.0,
        command=(sys.executable, *command),
    )
    outcome = run_script(
        request, timeout_s=300.0, on_start=lambda _: None, on_message=lambda _: None
    )
    assert isinstance(outcome.result, TrialResult), outcome
    return outcome.result


def in_turn(*sides: Callable[[], float], rounds: int) -> list[list[float]]:
    """Values of two sides, A B B A in each round."""
    found: list[list[float]] = [[], []]
    for _ in range(rounds):
        for side in (0, 1, 1, 0):
            found[side].append(sides[side]())
    return found


def reported(name: str, sides: list[list[float]]) -> float:
    """Print the ratio of the sides' medians with its spread over pairs, and return it."""
    ratios = [one / other for one, other in zip(*sides, strict=True)]
    middle = statistics.median(sides[0]) / statistics.median(sides[1])
    spread = statistics.stdev(ratios) / len(ratios) ** 0.5
    print(f"\n{name}: {middle:.4f} +- {spread:.4f}, {len(ratios)} pairs")
    return middle


class HandTimed:
    """The program that notes the ends of its steps, alone and wrapped."""

    def __init__(self, folder: Path, *, mark: StepMark, width: int) -> None:
        self._notes = folder / "notes.json"
        self._mark = mark
        self._command = [str(PROGRAMS / "hand_timed.py"), mark, str(width)]

    def alone(self) -> list[float]:
        """Seconds of its steps, after a while, by its own clock."""
        subprocess.run([sys.executable, *self._command, "5", str(self._notes)], check=True)
        return self._steps_s()

    def wrapped(self) -> TrialResult:
        return wrapped(*self._command, "120", str(self._notes), step=self._mark)

    def _steps_s(self) -> list[float]:
        ends_s = self.ends_s()
        late_s = [one for one in ends_s if one - ends_s[0] > SETTLED_S]
        return [end - start for start, end in zip(late_s, late_s[1:], strict=False)]

    def ends_s(self) -> list[float]:
        noted: list[float] = json.loads(self._notes.read_text())
        return noted

    def alone_s(self) -> float:
        """Its median step alone."""
        return statistics.median(self.alone())

    def beside_s(self) -> float:
        """Its median step by its own clock, while it is measured."""
        self.wrapped()
        return statistics.median(self._steps_s())


def test_the_window_has_the_time_that_the_program_itself_takes(tmp_path: Path) -> None:
    program = HandTimed(tmp_path, mark="optimizer", width=1024)
    own: list[float] = []

    def by_wrap() -> float:
        result = program.wrapped()
        inside = [
            one
            for one in program.ends_s()
            if result.window_start_s < one <= result.window_end_s + 1e-3
        ]
        row = result.row
        # Means over the very same steps: the program's clock is read some microseconds later.
        own_s = (inside[-1] - inside[0]) / (len(inside) - 1)
        own.append(float(str(row["window_s"])) / float(str(row["steps"])) / own_s)
        return float(str(row["step_median_ms"])) / 1e3

    sides = in_turn(by_wrap, program.alone_s, rounds=3)
    middle = statistics.median(own)
    print(f"\nwindow's mean step / the program's own over the same steps: {middle:.5f}, all {own}")
    assert abs(middle - 1) <= 0.01
    assert abs(reported("median step by bench wrap / by hand, alone", sides) - 1) <= 0.01


@pytest.mark.parametrize("mark", ["optimizer", "forward", "loader", "mark"])
def test_hooks_take_some_microseconds_a_step(mark: StepMark, tmp_path: Path) -> None:
    program = HandTimed(tmp_path, mark=mark, width=0)
    with_s, without_s = in_turn(program.beside_s, program.alone_s, rounds=2)
    added_us = 1e6 * (statistics.median(with_s) - statistics.median(without_s))
    print(
        f"\n--step {mark}: {added_us:.1f} us a step "
        f"({1e6 * statistics.median(without_s):.1f} us without)"
    )
    assert added_us < 20.0


def test_the_start_hook_costs_next_to_nothing_outside() -> None:
    def imports(autoload: str) -> float:
        code = "import time; s = time.perf_counter(); import torch; print(time.perf_counter() - s)"
        environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": autoload}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True
        )
        return float(done.stdout)

    found = in_turn(lambda: imports("1"), lambda: imports("0"), rounds=8)
    added_ms = 1e3 * (statistics.median(found[0]) - statistics.median(found[1]))
    print(f"\nimport torch: {added_ms:.1f} ms more with all backends' entry points")
    # Torch itself looks for them in the metadata of every package: that is most of it.
    start_s = time.perf_counter()
    code = "import time; s = time.perf_counter(); import gapbench_start; gapbench_start.start()"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(time.perf_counter() - s)"],
        capture_output=True,
        check=True,
    )
    assert time.perf_counter() > start_s
    print(f"the hook itself: {1e3 * float(done.stdout):.2f} ms")
    assert float(done.stdout) < 0.005
    assert added_ms < 50.0


def test_a_plain_script_is_as_fast_as_the_same_net_in_a_workload(tmp_path: Path) -> None:
    def by_run() -> float:
        flags = ["--workload", "llm-train", "--size", "tiny", "--device", "cpu", "--threads", "1"]
        flags += ["--dtype", "fp32", "--workers", "0", "--profile", "quick", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "bench", "run", *flags, "--out", str(tmp_path)],
            capture_output=True,
            text=True,
        )
        return float(json.loads(done.stdout)["rows"][-1]["step_median_ms"])

    def by_wrap() -> float:
        return float(str(wrapped(str(PROGRAMS / "plain_llama.py")).row["step_median_ms"]))

    by_run()  # measures the roof once
    sides = in_turn(by_wrap, by_run, rounds=4)
    assert abs(reported("llm-train tiny: bench wrap / bench run", sides) - 1) <= 0.03
