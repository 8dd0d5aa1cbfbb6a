"""The report as one HTML file, by the template `report.html.j2`.

The content security policy allows the page's one script by its hash and nothing else, so that even
a cell that slipped through unescaped could not run.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from bench.report.page.content import Report
from bench.report.tables.cells import AnyCell, Cell
from bench.report.tables.grid import plain

GENERATOR = '<meta name="generator" content="bench report">'
"""By this line a file is known to be a report, which a later report may replace."""
MAX_LIST_ITEMS = 20
MAX_DEPTH = 6
MAX_TEXT_CHARACTERS = 400


def page(report: Report) -> str:
    """HTML of a report."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"text": text, "cell": _cell, "width": _width, "kind": _kind}
    script = _asset("report.js")
    return environment.from_string(_asset("report.html.j2")).render(
        report=report,
        generator=GENERATOR,
        style=_asset("report.css"),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        max_list_items=MAX_LIST_ITEMS,
        max_depth=MAX_DEPTH,
    )


def text(value: object) -> str:
    """Text on one line; control characters are replaced, and very long text is cut."""
    shown = plain(" ".join(str(value).split()))
    is_long = len(shown) > MAX_TEXT_CHARACTERS
    return shown[: MAX_TEXT_CHARACTERS - 1] + "…" if is_long else shown


def _cell(value: AnyCell) -> Cell:
    return value if isinstance(value, Cell) else Cell(text=value)


def _width(cell: Cell) -> str:
    length = len(cell.text)
    return "long" if length > 40 else "medium" if length > 16 else ""


def _kind(part: object) -> str:
    return type(part).__name__


def _asset(name: str) -> str:
    return (resources.files("bench.report.page") / name).read_text(encoding="utf-8")
