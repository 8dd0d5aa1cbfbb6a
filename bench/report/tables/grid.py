"""A table of typed cells, and its form in Markdown; the terminal's is `screen`, the page's `html`.

Cells may come out of a file that anybody wrote, so nothing in them is markup: control characters
are replaced, Markdown's and HTML's special characters are escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from bench.report.tables.cells import AnyCell, Cell, text_of

Line = TypeVar("Line")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Heads and rows of cells; a column that holds a figure is aligned right."""

    heads: tuple[str, ...]
    rows: Sequence[Sequence[AnyCell]]
    title: str = ""
    notes: tuple[str, ...] = ()
    """Lines under the table."""
    names: tuple[str, ...] = ()
    """Heads of columns that name something: on a screen each name stands once, in a legend."""
    spare: tuple[str, ...] = ()
    """Heads of columns that a narrow screen leaves out, the first one first."""

    @classmethod
    def of(
        cls,
        lines: Iterable[Line],
        columns: Mapping[str, Callable[[Line], AnyCell]],
        *,
        title: str = "",
        notes: Sequence[str] = (),
        names: tuple[str, ...] = (),
        spare: tuple[str, ...] = (),
    ) -> Grid:
        """One row a line; `columns` are heads, and what makes a line's cell."""
        rows = [tuple(cell(line) for cell in columns.values()) for line in lines]
        heads, notes = tuple(columns), tuple(notes)
        return cls(heads=heads, rows=rows, title=title, notes=notes, names=names, spare=spare)

    @property
    def is_right(self) -> list[bool]:
        """Which columns hold figures."""
        columns = ([row[i] for row in self.rows] for i in range(len(self.heads)))
        return [
            any(isinstance(cell, Cell) and cell.key is not None for cell in column)
            for column in columns
        ]

    def without(self, heads: Sequence[str]) -> Grid:
        """The same table without some columns."""
        kept = [i for i, head in enumerate(self.heads) if head not in heads]
        return replace(
            self,
            heads=tuple(self.heads[i] for i in kept),
            rows=[tuple(row[i] for i in kept) for row in self.rows],
        )

    def filled(self) -> Grid:
        """The same table without columns in which no cell has anything."""
        is_filled = [any(row[i] for row in self.rows) for i in range(len(self.heads))]
        return self.without(
            [head for head, has in zip(self.heads, is_filled, strict=True) if self.rows and not has]
        )


def plain(text: str) -> str:
    """Text without anything a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def markdown_cell(text: str) -> str:
    """Text that Markdown and the HTML inside it show as it is."""
    escaped = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for special in "\\`*_[]|~":
        escaped = escaped.replace(special, f"\\{special}")
    return escaped


def markdown_list(lines: Sequence[str]) -> str:
    """Lines as a list."""
    return "\n".join(f"- {markdown_cell(line)}" for line in lines)


def markdown(grids: Sequence[Grid], *, lines: Sequence[str] = ()) -> str:
    """Tables, and lines below them."""
    parts = [*map(markdown_table, grids), markdown_list(lines)]
    return "\n\n".join(part for part in parts if part)


def markdown_table(grid: Grid) -> str:
    """Table as GitHub's Markdown understands it, notes below."""
    grid = grid.filled()
    heads = " | ".join(map(markdown_cell, grid.heads))
    rule = " | ".join("---:" if is_right else "---" for is_right in grid.is_right)
    lines = [f"| {heads} |", f"| {rule} |"]
    lines += [
        "| " + " | ".join(markdown_cell(text_of(cell)) for cell in row) + " |" for row in grid.rows
    ]
    table = "\n".join(lines)
    title = f"**{markdown_cell(grid.title)}**" if grid.title else ""
    return "\n\n".join(part for part in (title, table, markdown_list(grid.notes)) if part)


def grouped(lines: Iterable[Line], name: Callable[[Line], str]) -> dict[str, list[Line]]:
    """Things by name, in order of appearance."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(name(line), []).append(line)
    return groups
