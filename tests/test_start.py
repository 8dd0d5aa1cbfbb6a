"""What starting costs: no torch before there is something to measure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TIMED = str(ROOT / "tests" / "workload_files" / "timed.py")
ROWS = str(ROOT / "results" / "reference" / "cpu-2core.csv")
MEASURING = {"torch", "monai", "transformers"}
HEAVY = MEASURING | {"pandas", "matplotlib", "scipy", "numpy"}


def modules_after(*arguments: str, cwd: Path) -> set[str]:
    """Top-level names of all modules that a command has imported when it ends."""
    program = (
        "import sys\n"
        "from bench.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print('MODULES', code, *sorted(names), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    line = done.stderr.splitlines()[-1].split()
    assert line[:2] == ["MODULES", "0"], done.stderr
    return set(line[2:])


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["--version"], ["list"], ["list", "--json"]]
)
def test_reading_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    modules = modules_after(*arguments, cwd=tmp_path)
    assert "bench" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize(
    "arguments", [["compare", ROWS, ROWS], ["gap", ROWS], ["export", ROWS, "--to", "json"]]
)
def test_judging_rows_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert not modules_after(*arguments, cwd=tmp_path) & HEAVY


@pytest.mark.parametrize(
    "arguments", [["claims", "h20-cores"], ["project", ROWS, "--to", "h20-96g"]]
)
def test_studying_rows_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    assert not modules_after(*arguments, cwd=tmp_path) & (MEASURING | {"pandas", "matplotlib"})


def test_list_of_chips_imports_no_torch(tmp_path: Path) -> None:
    assert not modules_after("list", "chips", cwd=tmp_path) & MEASURING


@pytest.mark.parametrize("more", [["--dry-run"], ["--trials", "2"]])
def test_run_on_the_fake_device_imports_no_torch(more: list[str], tmp_path: Path) -> None:
    modules = modules_after("run", "-w", TIMED, "--device", "fake", *more, cwd=tmp_path)
    assert not modules & (MEASURING | {"pandas", "matplotlib", "scipy"})


def test_parent_of_a_real_run_imports_no_torch(tmp_path: Path) -> None:
    arguments = ["run", "-w", "sleep-infer", "--size", "tiny", "--device", "cpu"]
    modules = modules_after(*arguments, "--profile", "smoke", "--quiet", cwd=tmp_path)
    assert not modules & MEASURING


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    program = (
        "import logging, os, signal, sys\n"
        "before = dict(os.environ), logging.root.handlers[:], signal.getsignal(signal.SIGINT)\n"
        "import bench, bench.cli, bench.run.session, bench.measure.trial\n"
        "after = dict(os.environ), logging.root.handlers[:], signal.getsignal(signal.SIGINT)\n"
        "assert before == after\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
