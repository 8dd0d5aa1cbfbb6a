"""Two revisions in one job, through the script that the example workflow calls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results.reader import read_rows

ROOT = Path(__file__).parent.parent.parent
WORKLOAD = ROOT / "tests" / "workload_files" / "timed.py"
Done = subprocess.CompletedProcess[str]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}


def gate(tmp_path: Path, *, slowdown: float) -> Done:
    """Run the gate on two folders whose workload takes 10 ms and 10 ms times `slowdown`."""
    pythons = {}
    for side, factor in (("base", 1.0), ("head", slowdown)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "slowdown").write_text(str(factor))
        python = tmp_path / side / "python"
        python.write_text(f'#!/bin/sh\ncd "{tmp_path / side}" && exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        pythons[f"{side.upper()}_PYTHON"] = str(python)
    return subprocess.run(
        [
            ROOT / "scripts" / "performance_gate.sh",
            tmp_path / "base",
            tmp_path / "head",
            *("--workload", f"{WORKLOAD}:infer", "--set", "pace=slowdown", "--device", "fake"),
        ],
        cwd=tmp_path,
        env={
            **environment(tmp_path / "cache"),
            **pythons,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_an_injected_slowdown_fails_the_gate(tmp_path: Path) -> None:
    done = gate(tmp_path, slowdown=1.2)
    assert done.returncode == 1, done.stderr
    assert "| REGRESSION |" in done.stdout
    assert len(list((tmp_path / "head" / "results").glob("*.csv"))) == 2


def test_an_unchanged_workload_passes_the_gate(tmp_path: Path) -> None:
    done = gate(tmp_path, slowdown=1.0)
    assert done.returncode == 0, done.stderr
    assert "REGRESSION" not in done.stdout and "timed-infer" in done.stdout


def test_the_workflow_calls_the_script_that_is_tested() -> None:
    workflow = (ROOT / ".github" / "workflows" / "performance.yml").read_text(encoding="utf-8")
    assert "scripts/performance_gate.sh base head --workload" in workflow


@pytest.fixture
def bench(tmp_path: Path) -> object:
    def run(*arguments: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "bench", *arguments],
            cwd=tmp_path,
            env=environment(tmp_path / "cache"),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    return run


def test_ab_names_the_slower_arm_and_writes_a_file_for_each(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    arm = "--workload sleep-infer --device fake --size tiny --set seconds="
    done = bench("ab", arm + "0.02", arm + "0.03", "--blocks", "3", "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    (result,) = document["results"]
    assert result["verdict"] == "REGRESSION"
    assert result["low"] < 1.5 < result["high"]
    assert result["num_blocks"] == 3
    assert "seconds=0.02" in result["a"] and "seconds=0.03" in result["b"]
    for path in document["paths"]:
        assert [row["trial"] for row in read_rows(tmp_path / path)] == list(range(6))


def test_calibrate_keeps_a_noise_floor_that_compare_takes_up(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = bench(
        "calibrate", "--workload sleep-infer --device fake --size tiny", "--blocks", "3", "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (floor,) = document["floors"]
    assert 0 < floor["floor_frac"] < 0.05
    assert floor["num_trials"] == 6
    assert (tmp_path / "cache" / "gapbench" / "noise.json").is_file()
    compared = bench("compare", *document["paths"], "--json")
    (row,) = json.loads(compared.stdout)["rows"]
    assert row["threshold_frac"] >= 2 * floor["floor_frac"] - 1e-9


def test_gap_measures_the_half_that_is_missing(bench, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    flags = ("--device", "fake", "--size", "tiny", "--quiet")
    path = bench("run", "--workload", "llm-train", *flags).stdout.strip()
    without = bench("gap", path)
    assert without.returncode == 5
    assert "bench run --workload llm-prefill" in without.stdout
    done = bench("gap", path, "--run")
    assert done.returncode == 0, done.stderr
    assert "llm" in done.stdout and "prefill" in done.stdout
    assert len(list((tmp_path / "results").glob("*.csv"))) == 2
