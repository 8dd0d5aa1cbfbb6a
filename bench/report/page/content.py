"""What a report says, before it is HTML or Markdown: sections made of a few kinds of parts.

The same sections are rendered twice, so nothing here knows about either format. A part holds plain
text out of files that anybody may have written; whoever renders it escapes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

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


def section(name: str, title: str, *parts: Part | None) -> Section:
    """A section of those parts that have something to show."""
    return Section(name=name, title=title, parts=tuple(part for part in parts if _is_filled(part)))


def _is_filled(part: Part | None) -> TypeGuard[Part]:
    if isinstance(part, Grid):
        return bool(part.rows)
    return bool(part.lines) if isinstance(part, Prose) else part is not None
