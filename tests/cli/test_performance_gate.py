"""Two revisions in one job, through the script that the example workflow calls."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results.reader import read_rows
from tests.cli.conftest import Ask

ROOT = Path(__file__).parent.parent.parent
WORKLOAD = ROOT / "tests" / "workload_files" / "timed.py"


def gate(tmp_path: Path, *, slowdown: float) -> subprocess.CompletedProcess[str]:
    """Run the gate on two folders whose workload takes 10 ms and 10 ms times `slowdown`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for side, factor in (("base", 1.0), ("head", slowdown)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "slowdown").write_text(str(factor))
        python = tmp_path / side / "python"
        python.write_text(f'#!/bin/sh\ncd "{tmp_path / side}" && exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        environment[f"{side.upper()}_PYTHON"] = str(python)
    return subprocess.run(
        [
            ROOT / "scripts" / "performance_gate.sh",
            tmp_path / "base",
            tmp_path / "head",
            *("--workload", f"{WORKLOAD}:infer", "--set", "pace=slowdown", "--device", "fake"),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.mark.parametrize(("slowdown", "code"), [(1.2, 1), (1.0, 0)])
def test_only_an_injected_slowdown_fails_the_gate(
    tmp_path: Path, slowdown: float, code: int
) -> None:
    done = gate(tmp_path, slowdown=slowdown)
    assert done.returncode == code, done.stderr
    assert "timed-infer" in done.stdout
    assert ("| REGRESSION |" in done.stdout) == ("REGRESSION" in done.stdout) == (code == 1)
    assert len(list((tmp_path / "head" / "results").glob("*.csv"))) == 2
    workflow = (ROOT / ".github" / "workflows" / "performance.yml").read_text(encoding="utf-8")
    assert "scripts/performance_gate.sh base head --workload" in workflow


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_ab_names_the_slower_arm_and_writes_a_file_for_each(ask: Ask) -> None:
    arm = "--workload sleep-infer --device fake --size tiny --set seconds="
    document = ask("ab", arm + "0.02", arm + "0.03", "--blocks", "3", "--json", code=1).document
    (result,) = document["results"]
    assert (result["verdict"], result["num_blocks"]) == ("REGRESSION", 3)
    assert result["low"] < 1.5 < result["high"]
    assert "seconds=0.02" in result["a"] and "seconds=0.03" in result["b"]
    for path in document["paths"]:
        assert [row["trial"] for row in read_rows(Path(path))] == list(range(6))


def test_calibrate_keeps_a_noise_floor_that_compare_takes_up(ask: Ask, tmp_path: Path) -> None:
    flags = "--workload sleep-infer --device fake --size tiny"
    document = ask("calibrate", flags, "--blocks", "3", "--json").document
    (floor,) = document["floors"]
    assert 0 < floor["floor_frac"] < 0.05
    assert floor["num_trials"] == 6
    assert (tmp_path / "cache" / "gapbench" / "noise.json").is_file()
    (row,) = ask("compare", *document["paths"], "--json").document["rows"]
    assert row["threshold_frac"] >= 2 * floor["floor_frac"] - 1e-9


def test_gap_measures_the_half_that_is_missing(ask: Ask, tmp_path: Path) -> None:
    flags = ("--device", "fake", "--size", "tiny", "--quiet")
    path = ask("run", "--workload", "llm-train", *flags).out.strip()
    assert "bench run --workload llm-prefill" in ask("gap", path, code=5).out
    out = ask("gap", path, "--run").out
    assert "llm" in out and "prefill" in out
    assert len(list((tmp_path / "results").glob("*.csv"))) == 2
