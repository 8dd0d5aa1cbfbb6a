"""`bench_workload` as a team meets it: in a pytest of its own, found by entry point."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

pytest_plugins = ["tests.simdev.fixture"]

ROOT = Path(__file__).parent.parent

FAULTY = """
from dataclasses import dataclass
from workloads import sleep


@dataclass(frozen=True, kw_only=True)
class Workload(sleep.Workload):
    def check(self, phase, output):
        if self.seconds < 0.02:
            raise ValueError("two and two make five")
"""

SUITE = """
import gc
import time

import pytest
import torch

STATE = {}


def settings():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # Python 3.12 has frozen some hundred by itself.
    frozen, random_state = gc.get_freeze_count() > 1000, torch.get_rng_state().tolist()
    return [matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, frozen, random_state]


def test_before():
    torch.manual_seed(123)
    STATE["before"] = settings()


def test_warm_up(bench_workload):
    start_s = time.perf_counter()
    step = bench_workload("sleep-infer", device="cpu", settings={"seconds": 0.1}, warmup_steps=4)
    assert time.perf_counter() - start_s >= 0.4
    assert gc.get_freeze_count() > 1000
    torch.rand(3)
    STATE["step"] = step


def test_after():
    assert settings() == STATE["before"]
    assert not hasattr(STATE["step"], "_engine"), "the engine was let go"


def test_infer(bench_workload, benchmark):
    step = bench_workload("sleep-infer", device="cpu", batch=3, settings={"seconds": 0.03})
    count = benchmark.pedantic(step, rounds=3)
    assert count.items == 3


def test_train(bench_workload, benchmark):
    step = bench_workload("tabular-train", size="tiny", device="cpu")
    assert benchmark.pedantic(step, rounds=2).flops > 0


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("imagin-train", {}),
        ("imaging", {}),
        ("sleep-infer", {"size": "huge"}),
        ("sleep-infer", {"device": "abacus:0"}),
        ("./faulty.py:infer", {"settings": {"seconds": 0.01}}),
    ],
)
def test_wrong(bench_workload, name, asked):
    bench_workload(name, **{"device": "cpu", **asked})


def test_wrong_dtypes(bench_workload):
    bench_workload("sleep-infer", device="cpu")
    bench_workload("sleep-infer", device="cpu", dtype="tf32")
"""


def run_suite(
    folder: Path, suite: str, *arguments: str, env: Mapping[str, str] = os.environ
) -> str:
    """Run pytest on a suite where the plugin is found as an installed one is: its output."""
    (folder / "test_suite.py").write_text(suite)
    (folder / "faulty.py").write_text(FAULTY)
    installed = folder / "site" / "gapbench_entry-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: gapbench-entry\nVersion: 0\n")
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"{name} = {value}\n" for name, value in entries["pytest11"].items()]
    (installed / "entry_points.txt").write_text("[pytest11]\n" + "".join(lines))
    paths = filter(None, [str(installed.parent), str(ROOT), env.get("PYTHONPATH")])
    words = ["pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={
            # It is no worker of ours: one benchmarks nothing.
            **{key: value for key, value in env.items() if "XDIST" not in key},
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 1, "what is wrong there fails"
    return done.stdout


def test_workloads_are_benchmarked_and_mistakes_fail_in_one_line(tmp_path: Path) -> None:
    output = run_suite(tmp_path, SUITE, "--benchmark-json=out.json")
    # The wrong output is found when the test is over.
    assert "5 failed, 6 passed, 1 error" in output
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert ["::test_wrong" in line for line in failed] == [True] * 6
    infer, train = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert 0.03 <= infer["stats"]["min"] < 0.06
    of_infer, of_train = infer["extra_info"], train["extra_info"]
    assert (of_infer["workload"], of_infer["batch"]) == ("sleep-infer", 3)
    assert (of_train["workload"], of_train["mode"]) == ("tabular-train", "real")
    assert train["stats"]["rounds"] == 2
    lines = {line for line in output.splitlines() if line.startswith("bench_workload: ")}
    for reported in (
        "workload 'imagin-train' is not one of",
        "workload 'imaging' has several phases: name one of imaging-train, ",
        "--size 'huge' is not one of tiny, small",
        "abacus",
        "tf32 is a setting of the whole process",
        "wrong output of faulty-infer: two and two make five",
    ):
        (line,) = (line for line in lines if reported in line)
        assert line.count("bench_workload") == 1, reported
    assert "Traceback" not in output and "During handling" not in output


def test_a_call_waits_for_its_device_with_no_pytest_benchmark_too(
    tmp_path: Path, simdev_env: dict[str, str]
) -> None:
    suite = """
import time

def elapsed_s(call):
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s

def test_needs_it(bench_workload, benchmark):
    benchmark(bench_workload("sleep-infer", device="cpu"))

def test_own_clock(bench_workload):
    step = bench_workload(
        "sleep-infer", device="simdev:0", settings={"seconds": 0.001}, warmup_steps=1
    )
    queued_s = min(elapsed_s(step._engine.step) for _ in range(5))
    step._engine.adapter.synchronize()
    assert queued_s < 0.05, "queueing alone does not wait"
    assert min(elapsed_s(step) for _ in range(5)) >= 0.1, "one operator takes 0.1 s there"
    assert step().items == 1
"""
    env = {**simdev_env, "SIMDEV_QUIRKS": "queue_us=100000"}
    output = run_suite(tmp_path, suite, "-p", "no:benchmark", env=env)
    assert "which nothing provides: pip install pytest-benchmark" in output
    assert "1 passed, 1 error" in output


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import bench.pytest_plugin; "
        "print(sorted(set(sys.modules) - before))"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert printed.strip() == "['bench', 'bench.pytest_plugin']"
