"""Puts a report on the disk: whole or not at all, and never over something that is no report.

What a report is, is told by the line that each format begins with.
"""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import DataError, UsageError, one_of
from bench.report.page import html, markdown
from bench.report.page.content import Report
from bench.results.sidecar import write_whole

_HEAD_BYTES = 1000
_KINDS = {
    ".html": (html.page, html.GENERATOR),
    ".htm": (html.page, html.GENERATOR),
    ".md": (markdown.markdown, markdown.GENERATOR),
}


def check_output(path: Path) -> None:
    """Refuse, before any work, a name that cannot become a report."""
    if path.suffix.lower() not in _KINDS:
        raise one_of("the suffix of -o,", path.suffix, list(_KINDS))
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
    if not path.exists():
        return
    _, generator = _KINDS[path.suffix.lower()]
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: cannot be replaced: {error.strerror}") from error
    if head and generator.encode() not in head:
        raise UsageError(
            f"{path}: exists and was not made by bench report, so it is not replaced; "
            "choose another name or delete it"
        )


def write_report(path: Path, report: Report) -> None:
    """Write the format that the suffix names."""
    render, _ = _KINDS[path.suffix.lower()]
    try:
        write_whole(path, render(report).encode())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
