"""A table as plain text cells, for the terminal (rich) and for Markdown.

Cells may come out of a file that anybody wrote, so nothing in them is markup: control characters
are replaced, Markdown's and HTML's special characters are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {
    "REGRESSION": "bold red",
    "IMPROVED": "green",
    "SAME": "dim",
    "INCONCLUSIVE": "yellow",
    "NOT COMPARED": "magenta",
}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Heads and rows of cells; a head that ends in '>' is aligned right."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    title: str = ""
    notes: tuple[str, ...] = field(default=())
    """Lines under the table."""


def plain(text: str) -> str:
    """Text without anything a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def markdown_cell(text: str) -> str:
    """Text that Markdown and the HTML inside it show as it is."""
    escaped = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for special in "\\`*_[]|~":
        escaped = escaped.replace(special, f"\\{special}")
    return escaped


def rich_table(grid: Grid) -> Table:
    """Table for the terminal; verdict words are coloured."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(plain(grid.title), style="bold") if grid.title else None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for head in grid.heads:
        is_right = head.endswith(">")
        table.add_column(Text(head.rstrip(">")), justify="right" if is_right else "left")
    for row in grid.rows:
        table.add_row(*[Text(plain(cell), style=_STYLES.get(cell, "")) for cell in row])
    return table


def markdown_table(grid: Grid) -> str:
    """Table as GitHub's Markdown understands it, notes below."""
    heads = " | ".join(markdown_cell(head.rstrip(">")) for head in grid.heads)
    rule = " | ".join("---:" if head.endswith(">") else "---" for head in grid.heads)
    lines = [f"| {heads} |", f"| {rule} |"]
    lines += ["| " + " | ".join(markdown_cell(cell) for cell in row) + " |" for row in grid.rows]
    if grid.title:
        lines = [f"**{markdown_cell(grid.title)}**", "", *lines]
    notes = [f"- {markdown_cell(note)}" for note in grid.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes])
