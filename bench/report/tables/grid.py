"""A table as plain text cells, for the terminal (rich) and for Markdown.

Cells may come out of a file that anybody wrote, so nothing in them is markup: control characters
are replaced, Markdown's and HTML's special characters are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {
    "REGRESSION": "bold red",
    "IMPROVED": "green",
    "SAME": "dim",
    "INCONCLUSIVE": "yellow",
    "NOT COMPARED": "magenta",
    "HOLDS": "green",
    "HOLDS WHEN": "yellow",
    "REFUTED": "bold red",
    "UNDECIDED": "magenta",
    "OUT OF SCOPE": "dim",
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
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def markdown_cell(text: str) -> str:
    """Text that Markdown and the HTML inside it show as it is."""
    escaped = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for special in "\\`*_[]|~":
        escaped = escaped.replace(special, f"\\{special}")
    return escaped


_INTERVAL = re.compile(r" (?=[\[(][^\[\]()]*[\])]$)")


def rich_table(grid: Grid, *, has_tall_cells: bool = False) -> Table:
    """Table for the terminal; verdict words are coloured, nothing is cut off.

    With `has_tall_cells` an interval at the end of a cell stands under its figure.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(plain(grid.title), style="bold") if grid.title else None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for head in grid.heads:
        is_right = head.endswith(">")
        justify: Literal["right", "left"] = "right" if is_right else "left"
        table.add_column(Text(head.rstrip(">")), justify=justify, overflow="fold")
    for row in grid.rows:
        cells = [Text(plain(cell), style=_STYLES.get(cell, "")) for cell in row]
        if has_tall_cells:
            cells = [Text(_INTERVAL.sub("\n", text.plain), style=text.style) for text in cells]
        table.add_row(*cells)
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
