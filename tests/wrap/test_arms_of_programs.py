"""Arms of `bench ab` that are programs: which verb, which flags, which Python."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.core.errors import MeasurementError, UsageError
from bench.run.arms import ArmRuns, check_flags, run_bench, run_blocks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Commands that were started, with their environment; each fails."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def run(words: list[str], **how: Any) -> Any:
        found.append((words, how["env"]))
        return subprocess.CompletedProcess(words, 1, stdout="", stderr="bench: train: no\n")

    monkeypatch.setattr(subprocess, "run", run)
    return found


def test_an_arm_s_flags_stand_before_its_program(
    started: list[tuple[list[str], dict[str, str]]], tmp_path: Path
) -> None:
    words = ("--link", "10gbe", "--devices", "8", "--", "python", "train.py", "--seed", "3")
    arms = [ArmRuns(name=name, verb="wrap", flags=words) for name in "AB"]
    with pytest.raises(UsageError, match=r"^arm A: train: no$"):
        run_blocks((arms[0], arms[1]), order="ABBA", profile="quick", note=lambda _: None)
    [[command, _]] = started
    assert command[1:4] == ["-m", "bench", "wrap"]
    place = command.index("--")
    assert command[place:] == ["--", "python", "train.py", "--seed", "3"]
    before = " ".join(command[:place])
    assert "--quiet --out" in before
    assert before.endswith("--seed 0 --profile quick --trials 1 --link 10gbe --devices 8")


def test_flags_of_the_program_itself_are_its_own() -> None:
    check_flags(["--", "python", "train.py", "--json", "--out", "x"])
    with pytest.raises(UsageError, match="--out cannot be part of an arm"):
        check_flags(["--out", "x", "--", "python", "train.py"])


def test_a_wrapped_python_is_that_of_the_arm(
    started: list[tuple[list[str], dict[str, str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BENCH_WRAP_TRIALS", "9")
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    for python in (sys.executable, str(other)):
        with pytest.raises(MeasurementError):
            run_bench(["--", "python", "train.py"], verb="wrap", out=tmp_path, python=python)
    own, others = (environment for _, environment in started)
    assert own["PATH"] == os.environ["PATH"]
    assert others["PATH"].split(os.pathsep)[0] == str(tmp_path)
    assert "BENCH_WRAP_TRIALS" not in own


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("wrap --json -- python train.py", "--json cannot be part of an arm"),
        ("wrap -- python 'train.py", 'arm A: "wrap -- python \'train.py" cannot be read'),
        ("wrap", "arm A: bench wrap needs a command"),
    ],
)
def test_a_wrong_arm_is_refused_in_one_line(
    arm: str, expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", arm, "wrap -- true", "--out", str(tmp_path)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert expected in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_revisions_of_a_program_over_links_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = tmp_path / "train_ddp.py"
    source = (ROOT / "examples" / "train_ddp.py").read_text(encoding="utf-8")
    old.write_text(source.replace("AdamW", "SGD"), encoding="utf-8")
    arms = [
        f"wrap --devices 8 --link pcie4,10gbe -- {sys.executable} {path} --width 4"
        for path in (ROOT / "examples" / "train_ddp.py", old)
    ]
    words = ["ab", *arms, "--smoke", "--json", "--blocks", "3", "--out", str(tmp_path / "rows")]
    code = main(words)
    out, err = capfd.readouterr()
    assert code == 0, err
    document = json.loads(out)
    assert len(document["paths"]) == 2
    titles = [(one["a"], one["b"]) for one in document["results"]]
    for pair, link in zip(titles, ("pcie4", "10gbe"), strict=True):
        assert all(title.startswith("train_ddp fp32 b32 version ") for title in pair)
        assert all(title.endswith(f"[simulated] x8 ddp over {link}") for title in pair)
        assert pair[0] != pair[1]
