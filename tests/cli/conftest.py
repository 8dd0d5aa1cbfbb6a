"""Verbs as typed, in this process: result files for them, a cache of their own, their answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.cli import main
from bench.results.schema import Row
from tests.analysis.synthetic_rows import trials, write_csv
from tests.analysis.test_projection_rows import ROOFS


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


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)  # as without a terminal: 100 columns


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
