"""A report of given rows, made by the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main
from bench.results.schema import Row
from tests.report.page_reader import PageReader
from tests.report.report_rows import write_run

MakePage = Callable[..., PageReader]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def make_page(tmp_path: Path) -> MakePage:
    def make(*files: list[Row], steps: int = 0) -> PageReader:
        names = ["before.csv", "after.csv", "later.csv"][: len(files)]
        paths = [
            str(write_run(tmp_path / name, rows, steps=steps))
            for name, rows in zip(names, files, strict=True)
        ]
        output = tmp_path / "report.html"
        assert main(["report", *paths, "-o", str(output)]) == 0
        return PageReader(output.read_text(encoding="utf-8"))

    return make
