"""Result files to call verbs with, and a cache of their own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.results.schema import Row
from tests.analysis.synthetic_rows import write_csv

Write = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as files of these names; returns their paths."""

    def write(**files: list[Row]) -> list[str]:
        return [str(write_csv(tmp_path / f"{name}.csv", rows)) for name, rows in files.items()]

    return write
