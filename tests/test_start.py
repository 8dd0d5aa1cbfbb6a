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
STUDYING = MEASURING | {"pandas", "matplotlib"}
HEAVY = MEASURING | {"pandas", "matplotlib", "scipy", "numpy"}
READING = HEAVY | {"workloads"}


def python(program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def modules_after(*arguments: str, cwd: Path) -> set[str]:
    """Top-level names of all modules that a command has imported when it ends."""
    program = (
        "import sys\n"
        "from bench.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print('MODULES', code, *sorted(names), file=sys.stderr)\n"
    )
    done = python(program, *arguments, cwd=cwd)
    line = done.stderr.splitlines()[-1].split()
    assert line[:2] == ["MODULES", "0"], done.stderr
    return set(line[2:])


@pytest.mark.parametrize(
    ("words", "kept_out"),
    [
        *[(words, HEAVY) for words in ("--help", "run --help", "--version", "list", "list --json")],
        *[(words, READING) for words in ("compare ROWS ROWS", "gap ROWS", "export ROWS --to json")],
        ("claims h20-cores", STUDYING),
        ("project ROWS --to h20-96g", STUDYING | {"workloads"}),
        *[(words, MEASURING) for words in ("list chips", "doctor --json")],
        ("run -w TIMED --device fake --dry-run", HEAVY),
        ("run -w TIMED --device fake --trials 2", HEAVY),
        # The parent of a real run.
        ("run -w sleep-infer --size tiny --device cpu --profile smoke --quiet", MEASURING),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(
    words: str, kept_out: set[str], tmp_path: Path
) -> None:
    paths = {"ROWS": ROWS, "TIMED": TIMED}
    modules = modules_after(*(paths.get(one, one) for one in words.split()), cwd=tmp_path)
    assert "bench" in modules
    assert not modules & kept_out


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    program = (
        "import logging, os, signal, sys\n"
        "before = dict(os.environ), logging.root.handlers[:], signal.getsignal(signal.SIGINT)\n"
        "import bench, bench.cli, bench.run.session, bench.measure.trial\n"
        "after = dict(os.environ), logging.root.handlers[:], signal.getsignal(signal.SIGINT)\n"
        "assert before == after\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = python(program, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
