"""Two revisions in one job, through the script that the example workflow calls."""

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from bench.results.reader import read_rows
from bench.run.launching import launch
from tests.analysis.synthetic_rows import trials
from tests.cli.conftest import Ask, Write

ROOT = Path(__file__).parent.parent.parent
WORKLOAD = ROOT / "tests" / "workload_files" / "timed.py"
SLEEP = "--workload sleep-infer --device fake --size tiny --set seconds"


@pytest.mark.parametrize(
    ("flags", "rows", "code", "verdict"),
    [
        (("--blocks", "3"), "head/results", 1, "REGRESSION"),
        (("--fail-on", "60%", "--out=rows", "--blocks", "3"), "rows", 0, "SAME"),
        (("--fail-on", "19%", "--blocks=3", "--strict"), "head/results", 3, "INCONCLUSIVE"),
    ],
)
def test_the_gate_judges_an_injected_slowdown_by_its_flags_and_keeps_both_arms_rows(
    flags: tuple[str, ...], rows: str, code: int, verdict: str, tmp_path: Path
) -> None:
    """Two folders whose workload takes 10 ms and 12 ms."""
    environment = dict(os.environ)
    for side, factor in (("base", 1.0), ("head", 1.2)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "slowdown").write_text(str(factor))
        python = tmp_path / side / "python"
        python.write_text(f'#!/bin/sh\ncd "{tmp_path / side}" && exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        environment[f"{side.upper()}_PYTHON"] = str(python)
    measured = ("--workload", f"{WORKLOAD}:infer", "--set", "pace=slowdown", "--device", "fake")
    done = subprocess.run(
        [ROOT / "scripts" / "performance_gate.sh", "base", "head", *measured, *flags],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == code, done.stderr
    assert "timed-infer" in done.stdout and "[12/12]" in done.stderr
    verdicts = re.findall("REGRESSION|SAME|INCONCLUSIVE|IMPROVED", done.stdout)
    assert set(verdicts) == {verdict} and f"| {verdict} |" in done.stdout
    assert len(list((tmp_path / rows).glob("*.csv"))) == 2
    assert len(list(tmp_path.glob("**/*.csv"))) == 2
    workflow = (ROOT / ".github" / "workflows" / "performance.yml").read_text(encoding="utf-8")
    assert "scripts/performance_gate.sh base head --workload" in workflow


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_ab_names_the_slower_arm_and_writes_a_file_for_each(ask: Ask) -> None:
    words = ("ab", f"{SLEEP}=0.02", f"{SLEEP}=0.03", "--blocks", "3", "--json")
    document = ask(*words, code=1).document
    (result,) = document["results"]
    assert (result["verdict"], result["num_blocks"]) == ("REGRESSION", 3)
    assert result["low"] < 1.5 < result["high"]
    assert "seconds=0.02" in result["a"] and "seconds=0.03" in result["b"]
    for path in document["paths"]:
        assert [row["trial"] for row in read_rows(Path(path))] == list(range(6))


def test_ab_shows_each_trial_and_counts_those_it_lost(ask: Ask, tmp_path: Path) -> None:
    faulty = ROOT / "tests" / "workload_files" / "faulty.py"
    arm = f"--workload {faulty} --device fake --set fault=error --set once={tmp_path / 'met'}"
    answer = ask("ab", arm, arm, "--blocks", "3", "--json", code=4)
    (result,) = answer.document["results"]
    assert result["verdict"] == "NOT COMPARED"
    assert result["reason"] == "2 whole blocks, needs 3; 1 of 12 trials lost (error)"
    begun = [line for line in answer.err.splitlines() if line.startswith("[")]
    ended = [line.strip() for line in answer.err.splitlines() if not line.startswith("[")]
    assert len(begun) == len(ended) == 12
    assert begun[-1].startswith("[12/12] block 3, arm A, about ") and begun[-1].endswith(" left")
    assert ended[0].startswith("faulty-infer: FAILED (error)")
    assert all(
        re.fullmatch(r"faulty-infer: 1?\d(\.\d+)? sample/s, step .+, OK", one) for one in ended[1:]
    )


def test_an_arm_that_fails_in_a_whole_block_is_not_run_again(ask: Ask) -> None:
    faulty = ROOT / "tests" / "workload_files" / "faulty.py"
    arms = [f"--workload {faulty} --device fake --set fault={fault}" for fault in ("none", "error")]
    answer = ask("ab", *arms, "--blocks", "3", "--json", code=4)
    (result,) = answer.document["results"]
    assert (result["verdict"], result["num_blocks"]) == ("NOT COMPARED", 0)
    assert result["reason"].endswith("2 of 4 trials lost (error)")
    assert "arm B failed in every trial of a block: no more follow" in answer.err
    assert "[4/12]" in answer.err and "[5/12]" not in answer.err
    assert [len(read_rows(Path(path))) for path in answer.document["paths"]] == [2, 2]


def test_an_arm_that_is_interrupted_ends_the_comparison(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "run_child", Mock(side_effect=KeyboardInterrupt))
    said = ask("ab", f"{SLEEP}=0.02", f"{SLEEP}=0.03", "--blocks", "3", code=130)
    assert said.out == "" and "[2/12]" not in said.err


def test_smoke_shows_that_arms_run_and_decides_nothing(ask: Ask, tmp_path: Path) -> None:
    words = ("ab", f"{SLEEP}=0.02", f"{SLEEP}=0.04", "--blocks", "3", "--smoke")
    (result,) = ask(*words, "--json").document["results"]
    assert (result["verdict"], result["reason"]) == ("", "smoke: measures nothing")
    err = ask("calibrate", f"{SLEEP}=0.02", "--blocks", "2", "--smoke").err
    assert "not kept: smoke trials are too short" in err
    assert not (tmp_path / "cache" / "gapbench" / "noise.json").exists()


def test_calibrate_keeps_a_noise_floor_that_compare_takes_up(ask: Ask) -> None:
    document = ask("calibrate", f"{SLEEP}=0.02", "--blocks", "3", "--json").document
    (floor,) = document["floors"]
    assert 0 < floor["floor_frac"] < 0.05
    assert floor["num_trials"] == 6
    (row,) = ask("compare", *document["paths"], "--json").document["rows"]
    assert row["threshold_frac"] >= 2 * floor["floor_frac"] - 1e-9


def test_gap_measures_the_half_that_is_missing(ask: Ask, write: Write, tmp_path: Path) -> None:
    flags = ("--device", "fake", "--size", "tiny", "--quiet")
    path = ask("run", "--workload", "llm-train", *flags).out.strip()
    said = ask("gap", path, code=5).out
    assert "bench run --workload llm-prefill" in said
    assert not re.search("--(threads|workers|seed)", said), "what is the machine's is left to it"
    # What --workload leaves out is neither missing nor measured.
    alone = ask("gap", path, "-w", "llm:train", "--run", code=5)
    assert "no ratio where --workload leaves the other half out" in alone.err
    assert "bench run" not in alone.out + alone.err
    ask("report", path, "-w", "llm:train", "-o", tmp_path / "a.md")
    assert "bench run" not in (tmp_path / "a.md").read_text().partition("## Training against")[2]
    out = ask("gap", path, "-w", "llm", "--run").out
    assert "llm" in out and "prefill" in out
    assert len(list((tmp_path / "results").glob("*.csv"))) == 2
    lost = ask("gap", *write(mine=trials(workload="mine-train")), "--run", code=4).err
    assert "bench: workload 'mine-infer' is not one of" in lost, "in the words of the run"
    assert "the missing half could not be measured: bench run --workload mine-infer" in lost
