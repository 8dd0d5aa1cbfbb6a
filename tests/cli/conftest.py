"""Verbs as typed, all in this process: result files for them, a cache of their own, their answers.

Trials on the fake device and runs that `ab`, `calibrate` or `--run` start as processes are called
here, and the device is looked at once. Real ones are started by tests/run and in_a_shell.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from bench.cli import main
from bench.measure import messages
from bench.measure.asking import failure_of
from bench.measure.trial import run_request
from bench.results.schema import Row
from bench.run import session
from bench.run.launching import child, launch
from bench.serve import served_trial
from tests.analysis.synthetic_rows import trials, write_csv
from tests.analysis.test_projection_rows import ROOFS
from tests.run.conftest import looked_at_once

started = subprocess.run


class Answer(NamedTuple):
    """What a verb printed."""

    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def one_line(self) -> str:
        """All that a refused verb says."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        return line


Write = Callable[..., list[str]]
Ask = Callable[..., Answer]


class Heard(messages.Messages):
    """What a trial says in the process that asked for it."""

    def __init__(self, on_message: child.OnMessage) -> None:
        super().__init__()
        self._on_message = on_message
        self.last: Any = None

    def send(self, message: messages.Message) -> None:
        sent = messages.decode(messages.encode(message), messages.Answer)
        if isinstance(sent, messages.Stage | messages.StepsSoFar | messages.ServedSoFar):
            self._on_message(sent)
        else:
            self.last = sent


def child_here(module: str, *words: str, **how: Any) -> child.Outcome:
    """Run a trial on the fake device; start a process for any other."""
    trials = {
        "bench.measure.trial": run_request,
        "bench.serve.served_trial": served_trial.run_request,
    }
    if module not in trials or b'"device": "fake"' not in how["request"]:
        return child.run_child(module, *words, **how)
    heard = Heard(how["on_message"])
    try:
        trials[module](messages.decode(how["request"], messages.TrialRequest), heard)
    except Exception as error:
        heard.send(failure_of(error, device="fake"))
    if isinstance(heard.last, messages.Failure):
        return child.Outcome(failure=heard.last)
    return child.Outcome(result=heard.last)


def bench_here(words: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
    """Run `bench`; start any other program."""
    if words[:3] != [sys.executable, "-m", "bench"]:
        return started(words, **how)
    own = patch.dict(os.environ, how["env"], clear=True)
    heard = StringIO() if how["stderr"] else sys.stderr
    with own, redirect_stdout(StringIO()) as out, redirect_stderr(heard):
        code = main(words[3:])
    said = heard.getvalue() if isinstance(heard, StringIO) else None
    return subprocess.CompletedProcess(words, code, stdout=out.getvalue(), stderr=said)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def all_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)  # as without a terminal: 100 columns
    monkeypatch.setattr(session, "inspect_device", looked_at_once)
    monkeypatch.setattr(launch, "run_child", child_here)
    monkeypatch.setattr(subprocess, "run", bench_here)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as files of these names; returns their paths."""

    def write(**files: list[Row]) -> list[str]:
        return [str(write_csv(tmp_path / f"{name}.csv", rows)) for name, rows in files.items()]

    return write


@pytest.fixture
def csv(write: Write) -> str:
    """A result file with training and inference."""
    train = trials(num=3, **ROOFS)  # type: ignore[arg-type]
    infer = [{**row, "workload": "imaging-infer", "config_hash": "infer"} for row in train]
    (path,) = write(run=[*train, *infer])
    return path


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a verb, which has to end with `code`."""

    def run(*words: object, code: int = 0) -> Answer:
        found = main([str(word) for word in words])
        answer = Answer(*capsys.readouterr())
        assert found == code, f"{words} ended with {found}: {answer.err or answer.out}"
        return answer

    return run
