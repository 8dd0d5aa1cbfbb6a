"""What a report says, before it is HTML or Markdown: sections made of a few kinds of parts.

The same sections are rendered twice, so nothing here knows about either format. A part holds plain
text out of files that anybody may have written; whoever renders it escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.report.tables.grid import Grid


@dataclass(frozen=True, kw_only=True)
class Prose:
    """One paragraph, or a list of short lines."""

    lines: tuple[str, ...]
    is_list: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One panel as an inline SVG that was made by us, with what it shows in words."""

    title: str
    description: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Plots:
    """Panels that belong together; they flow into as many columns as there is room for."""

    panels: tuple[Plot, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PageFacts:
    """Nested facts, folded away under a title: an environment, a request."""

    title: str
    facts: Mapping[str, object]


Part = Prose | Grid | Plots | PageFacts


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what is under it."""

    name: str
    """Short, lower case; the anchor in the page and the name in --json."""
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that is rendered."""

    title: str
    summary: tuple[str, ...]
    """A few lines before the first section."""
    modes: tuple[str, ...]
    """Modes other than real that any row has."""
    sections: tuple[Section, ...]
    num_rows: int
    made_by: str
