"""`bench_workload` as a team meets it: in a pytest of its own, found by entry point."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.pytest_plugin import WorkloadStep

ROOT = Path(__file__).parent.parent
HEAD = "import gc, time\nimport torch\n"

FAULTY = """
from dataclasses import dataclass
from workloads import sleep


@dataclass(frozen=True, kw_only=True)
class Workload(sleep.Workload):
    def check(self, phase, output):
        raise ValueError("two and two make five")
"""


def run_suite(folder: Path, suite: str, *arguments: str) -> tuple[int, str]:
    """Run pytest on a suite where the plugin is found as an installed one is."""
    (folder / "test_suite.py").write_text(HEAD + suite)
    installed = folder / "site" / "gapbench_entry-0.dist-info"
    installed.mkdir(parents=True, exist_ok=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: gapbench-entry\nVersion: 0\n")
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries[group].items())
        for group in entries
    ]
    (installed / "entry_points.txt").write_text("".join(lines))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(installed.parent), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return done.returncode, done.stdout + done.stderr


def test_benchmarks_a_workload_and_says_what_was_run(tmp_path: Path) -> None:
    code, output = run_suite(
        tmp_path,
        """
def test_infer(bench_workload, benchmark):
    step = bench_workload("sleep-infer", device="cpu", batch=3, settings={"seconds": 0.03})
    count = benchmark.pedantic(step, rounds=3)
    assert count.items == 3

def test_train(bench_workload, benchmark):
    step = bench_workload("imaging-train", size="tiny", device="cpu")
    assert benchmark.pedantic(step, rounds=2).flops > 0
""",
        "--benchmark-json=out.json",
    )
    assert code == 0, output
    infer, train = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert 0.03 <= infer["stats"]["min"] < 0.06
    assert infer["extra_info"]["workload"] == "sleep-infer"
    assert infer["extra_info"]["batch"] == 3
    assert train["extra_info"]["workload"] == "imaging-train"
    assert train["extra_info"]["mode"] == "real"
    assert train["stats"]["rounds"] == 2


def test_warms_up_before_timing_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    code, output = run_suite(
        tmp_path,
        """
STATE = {}

def settings():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return [matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, gc.get_freeze_count(),
            torch.get_rng_state().tolist()]

def test_before():
    torch.manual_seed(123)
    STATE["before"] = settings()

def test_use(bench_workload):
    start_s = time.perf_counter()
    step = bench_workload("sleep-infer", device="cpu", settings={"seconds": 0.1}, warmup_steps=4)
    assert time.perf_counter() - start_s >= 0.4
    assert gc.get_freeze_count() > 0
    torch.rand(3)
    STATE["step"] = step

def test_after():
    assert settings() == STATE["before"]
    assert not hasattr(STATE["step"], "_engine"), "the engine was let go"
""",
    )
    assert code == 0, output


def test_mistakes_fail_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    code, output = run_suite(
        tmp_path,
        """
def test_typo(bench_workload):
    bench_workload("imagin-train", device="cpu")

def test_two_phases(bench_workload):
    bench_workload("imaging", device="cpu")

def test_size(bench_workload):
    bench_workload("sleep-infer", device="cpu", size="huge")

def test_device(bench_workload):
    bench_workload("sleep-infer", device="abacus:0")

def test_process_wide_dtype(bench_workload):
    bench_workload("sleep-infer", device="cpu")
    bench_workload("sleep-infer", device="cpu", dtype="tf32")

def test_wrong_output(bench_workload):
    bench_workload("./faulty.py:infer", device="cpu")
""",
    )
    assert code == 1
    assert "Traceback" not in output
    assert "During handling" not in output
    for told in (
        "bench_workload: workload 'imagin-train' is not one of",
        "bench_workload: workload 'imaging' has several phases: name one of imaging-train, ",
        "bench_workload: --size 'huge' is not one of tiny, small",
        "abacus",
        "bench_workload: tf32 is a setting of the whole process",
        "bench_workload: wrong output of faulty-infer: two and two make five",
    ):
        assert told in output
    assert "5 failed, 1 passed, 1 error" in output


def test_without_pytest_benchmark_only_the_test_that_needs_it_fails(tmp_path: Path) -> None:
    code, output = run_suite(
        tmp_path,
        """
def test_own_clock(bench_workload):
    assert bench_workload("sleep-infer", device="cpu")().items == 1

def test_needs_it(bench_workload, benchmark):
    benchmark(bench_workload("sleep-infer", device="cpu"))
""",
        "-p",
        "no:benchmark",
    )
    assert code == 1
    assert "which nothing provides: pip install pytest-benchmark" in output
    assert "1 passed, 1 error" in output


def test_disabled_benchmarks_run_the_step_once(tmp_path: Path) -> None:
    code, output = run_suite(
        tmp_path,
        """
def test_infer(bench_workload, benchmark):
    step = bench_workload("sleep-infer", device="cpu", warmup_steps=0)
    calls = []
    benchmark(lambda: calls.append(step()))
    assert len(calls) == 1
""",
        "--benchmark-disable",
    )
    assert code == 0, output


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import bench.pytest_plugin; "
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "['bench', 'bench.pytest_plugin']"


def test_each_call_ends_with_a_synchronisation() -> None:
    calls: list[str] = []

    def step() -> Any:
        calls.append("step")
        return SimpleNamespace(items=1)

    engine: Any = SimpleNamespace(step=step, synchronize=lambda: calls.append("synchronize"))
    timed = WorkloadStep(engine, facts={})
    assert timed().items == 1
    assert timed().items == 1
    assert calls == ["step", "synchronize"] * 2


def test_installed_distribution_declares_the_plugin() -> None:
    try:
        entries = importlib.metadata.distribution("gapbench").entry_points
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gapbench is not installed here")
    (entry,) = entries.select(group="pytest11")
    assert (entry.name, entry.value) == ("gapbench", "bench.pytest_plugin")
