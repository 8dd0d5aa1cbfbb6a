"""Puts a report on the disk as HTML or Markdown, by the template of that name.

Whole or not at all, and never over something that is no report: what a report is, is given by the
line that each format begins with. The page allows its one script by its hash and nothing else, so
that even a cell that slipped through unescaped could not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path

from bench.core.errors import UsageError, one_of
from bench.report.page.content import Report
from bench.report.tables.cells import AnyCell, Cell
from bench.report.tables.grid import markdown_cell, markdown_table, plain
from bench.results.whole_files import write_document

MAX_LIST_ITEMS = 20
MAX_DEPTH = 6
MAX_TEXT_CHARACTERS = 400
_HEAD_BYTES = 1000
_GENERATORS = {
    "html": '<meta name="generator" content="bench report">',
    "md": "<!-- made by bench report -->",
}
"""By this line a file is known to be a report, which a later report may replace."""
_FORMATS = {".html": "html", ".htm": "html", ".md": "md"}


def check_output(path: Path) -> None:
    """Refuse, before any work, a name that cannot become a report."""
    if path.suffix.lower() not in _FORMATS:
        raise one_of("the suffix of -o,", path.suffix, list(_FORMATS))
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: cannot be replaced: {error.strerror}") from error
    if head and _GENERATORS[_FORMATS[path.suffix.lower()]].encode() not in head:
        raise UsageError(
            f"{path}: exists and was not made by bench report, so it is not replaced; "
            "choose another name or delete it"
        )


def write_report(path: Path, report: Report) -> None:
    """Write the format that the suffix names."""
    write_document(path, render(report, _FORMATS[path.suffix.lower()]))


def render(report: Report, form: str) -> str:
    """The report as html or md."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=form == "html", undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {
        "text": _text,
        "cell": _cell,
        "width": _width,
        "kind": lambda part: type(part).__name__,
        "md": markdown_cell,
        "table": markdown_table,
        "json": lambda facts: json.dumps(facts, indent=1, sort_keys=True, default=str),
    }
    script = _asset("report.js")
    return environment.from_string(_asset(f"report.{form}.j2")).render(
        report=report,
        generator=_GENERATORS[form],
        style=_asset("report.css"),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        max_list_items=MAX_LIST_ITEMS,
        max_depth=MAX_DEPTH,
    )


def _text(value: object) -> str:
    """Text on one line; control characters are replaced, and very long text is cut."""
    shown = plain(" ".join(str(value).split()))
    is_long = len(shown) > MAX_TEXT_CHARACTERS
    return shown[: MAX_TEXT_CHARACTERS - 1] + "…" if is_long else shown


def _cell(value: AnyCell) -> Cell:
    return value if isinstance(value, Cell) else Cell(text=value)


def _width(cell: Cell) -> str:
    length = len(cell.text)
    return "long" if length > 40 else "medium" if length > 16 else ""


def _asset(name: str) -> str:
    return (resources.files("bench.report.page") / name).read_text(encoding="utf-8")
