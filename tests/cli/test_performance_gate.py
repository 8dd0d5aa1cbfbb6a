"""Two revisions in one job, through the script that the example workflow calls."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results.reader import read_rows
from tests.cli.conftest import Ask

ROOT = Path(__file__).parent.parent.parent
WORKLOAD = ROOT / "tests" / "workload_files" / "timed.py"


def gate(tmp_path: Path, *more: str, slowdown: float) -> subprocess.CompletedProcess[str]:
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
            *more,
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


def test_the_gate_takes_flags_of_ab_and_a_folder_beside_the_caller(tmp_path: Path) -> None:
    done = gate(tmp_path, "--fail-on", "60%", "--out=rows", "--blocks", "3", slowdown=1.2)
    assert done.returncode == 0, done.stderr
    assert "| SAME |" in done.stdout and "[12/12]" in done.stderr
    assert len(list((tmp_path / "rows").glob("*.csv"))) == 2
    assert not (tmp_path / "head" / "results").exists()


def test_an_undecided_gate_passes_only_where_it_may(tmp_path: Path) -> None:
    done = gate(tmp_path, "--fail-on", "19%", "--blocks=3", "--strict", slowdown=1.2)
    assert done.returncode == 3, done.stderr
    assert "| INCONCLUSIVE |" in done.stdout


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


@pytest.mark.parametrize("blocks", ["0", "2"])
def test_ab_refuses_blocks_that_cannot_decide_before_it_measures(ask: Ask, blocks: str) -> None:
    arm = "--workload sleep-infer --device fake --size tiny"
    line = ask("ab", arm, arm, "--blocks", blocks, code=2).one_line
    assert line.startswith(f"bench: --blocks {blocks} cannot decide: a verdict needs 3 blocks")


def test_ab_shows_each_trial_and_counts_those_it_lost(ask: Ask, tmp_path: Path) -> None:
    faulty = ROOT / "tests" / "workload_files" / "faulty.py"
    arm = f"--workload {faulty} --device fake --set fault=error --set once={tmp_path / 'met'}"
    answer = ask("ab", arm, arm, "--blocks", "3", "--json", code=4)
    (result,) = answer.document["results"]
    assert result["verdict"] == "NOT COMPARED"
    assert result["reason"] == "2 whole blocks, needs 3; 1 of 12 trials were lost (error)"
    begun = [line for line in answer.err.splitlines() if line.startswith("[")]
    ended = [line.strip() for line in answer.err.splitlines() if not line.startswith("[")]
    assert len(begun) == len(ended) == 12
    assert begun[-1].startswith("[12/12] block 3, arm A, about ") and begun[-1].endswith(" left")
    assert ended[0].startswith("faulty-infer: FAILED (error)")
    assert all(
        re.fullmatch(r"faulty-infer: 1?\d(\.\d+)? sample/s, step .+, OK", one) for one in ended[1:]
    )


def test_smoke_shows_that_arms_run_and_decides_nothing(ask: Ask, tmp_path: Path) -> None:
    arm = "--workload sleep-infer --device fake --size tiny --set seconds="
    words = ("ab", arm + "0.02", arm + "0.04", "--blocks", "3", "--smoke")
    (result,) = ask(*words, "--json").document["results"]
    assert (result["verdict"], result["reason"]) == ("", "smoke: measures nothing")
    assert "--smoke measures nothing" in ask(*words, "--fail-on", "5%", code=2).one_line
    err = ask("calibrate", arm + "0.02", "--blocks", "2", "--smoke").err
    assert "not kept: smoke trials are too short" in err
    assert not (tmp_path / "cache" / "gapbench" / "noise.json").exists()


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
