"""A report of given rows, made by the command line, as a browser's parser would see it."""

from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.cli import main
from bench.results.schema import Row
from tests.report.report_rows import write_run

VOID = {"meta", "link", "br", "img", "input", "hr"}
LINKS = {"href", "src", "action", "data", "poster", "srcset", "xlink:href"}


class PageReader(HTMLParser):
    """Tags, attributes and texts of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        """Attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        """Everything a reader sees."""
        return " ".join(data for tag, data in self.texts if tag not in ("script", "style"))

    @property
    def repeated_ids(self) -> list[str]:
        """Identifiers that stand more than once."""
        counts = Counter(attributes["id"] for _, attributes in self.tags if "id" in attributes)
        return [name for name, count in counts.items() if count > 1]

    @property
    def outside_links(self) -> list[str]:
        """Addresses that are not places in the page itself."""
        found = [value for _, a in self.tags for name, value in a.items() if name in LINKS]
        return [value for value in found if not value.startswith("#")]


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
