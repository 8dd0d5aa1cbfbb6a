"""A table of typed cells, and its forms for a terminal and in Markdown; the page has its template.

Cells may come out of a file that anybody wrote, so nothing in them is markup: control characters
are replaced, Markdown's and HTML's special characters are escaped.

A terminal gets one line a row, names once in a legend, notes of all tables at the end. A table too
wide for the screen first loses its spare columns, which is said below it; a cell is folded only
where that does not suffice. What a row shares with all others of its table (size, precision,
device) is reported once below it. Modes stay in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from bench.report.tables.cells import AnyCell, Cell, text_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Line = TypeVar("Line")
STYLES = {
    "REGRESSION": "bold red",
    "IMPROVED": "green",
    "SAME": "dim",
    "INCONCLUSIVE": "yellow",
    "NOT COMPARED": "magenta",
    "HOLDS": "green",
    "HOLDS WHEN": "yellow",
    "BREAKS": "bold red",
    "REFUTED": "bold red",
    "UNDECIDED": "magenta",
    "OUT OF SCOPE": "dim",
    "error": "bold red",
    "warning": "yellow",
    "note": "dim",
}
_GAP = 2
_PREPOSITIONS = ("over", "with")
_LONG_NAME = 16
"""Different names longer than this are numbered in the rows and written out in the legend."""


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

        def is_figure(cell: AnyCell) -> bool:
            return isinstance(cell, Cell) and cell.key is not None

        return [any(is_figure(row[i]) for row in self.rows) for i in range(len(self.heads))]

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
        filled = {head for row in self.rows for head, it in zip(self.heads, row, strict=True) if it}
        return self.without([head for head in self.heads if self.rows and head not in filled])


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
    rule = ["---:" if is_right else "---" for is_right in grid.is_right]
    rows = (map(markdown_cell, map(text_of, row)) for row in grid.rows)
    lines = [map(markdown_cell, grid.heads), rule, *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    title = f"**{markdown_cell(grid.title)}**" if grid.title else ""
    return "\n\n".join(part for part in (title, table, markdown_list(grid.notes)) if part)


def print_tables(console: Console, grids: Sequence[Grid], *, lines: Sequence[str] = ()) -> None:
    """Print tables, then the notes of all of them, each once, then further lines."""
    notes: dict[str, None] = {}
    left_out: dict[str, None] = {}
    for number, grid in enumerate(map(Grid.filled, grids)):
        narrow, legend = fitted(grid, width=console.width)
        if number:
            console.print()
        if grid.title:
            reported = f"{grid.title} ({'; '.join(legend)})" if legend else grid.title
            console.print(plain(reported), markup=False, style="bold")
        elif legend:
            notes["; ".join(legend)] = None
        console.print(_table(narrow, width=console.width))
        gone = [head for head in grid.heads if head not in (*narrow.heads, *grid.names)]
        # "with contention: what that is" says nothing where that column is not shown.
        notes |= {note: None for note in grid.notes if note.partition(":")[0] not in gone}
        left_out |= dict.fromkeys(gone)
    if left_out:
        notes[f"not shown, for want of room: {', '.join(left_out)}"] = None
    if grids and (notes or lines):
        console.print()
    for line in (*notes, *lines):
        # Not wrapped by us: a command or an address in it is there to be copied.
        console.print(plain(line), markup=False, soft_wrap=True)


def fitted(grid: Grid, *, width: int) -> tuple[Grid, list[str]]:
    """The table as a screen of this width shows it, and the lines that it leaves to a legend."""
    legend: list[str] = []
    if len(grid.rows) > 1 and grid.heads:
        grid, common = _without_common_words(grid)
        legend += [f"all: {common}"] if common else []
    for name in grid.names:
        grid, lines = _named_once(grid, name=name)
        legend += lines
    for head in grid.spare:
        if _width(grid) > width:
            grid = grid.without([head])
    return grid, legend


def _columns(grid: Grid) -> list[list[str]]:
    """Texts of each column, its head first."""
    columns = zip(grid.heads, *(map(text_of, row) for row in grid.rows), strict=True)
    return [[plain(text) for text in column] for column in columns]


def _width(grid: Grid) -> int:
    from rich.cells import cell_len

    return sum(max(map(cell_len, column)) + _GAP for column in _columns(grid)) - _GAP


def _without_common_words(grid: Grid) -> tuple[Grid, str]:
    """Take out of the first column, which says what was run, the words that all rows share."""
    firsts = (row[0] for row in grid.rows)
    titles = [(one.text if isinstance(one, Cell) else one).split(" ") for one in firsts]
    common = []
    for words in zip(*(title[1:] for title in titles), strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    while common and common[-1] in _PREPOSITIONS:
        common.pop()
    rows = []
    for (first, *others), (name, *rest) in zip(grid.rows, titles, strict=True):
        kept = " ".join([name, *rest[len(common) :]])
        named = replace(first, text=kept) if isinstance(first, Cell) else kept
        rows.append((named, *others))
    return replace(grid, rows=rows), " ".join(common)


def _named_once(grid: Grid, *, name: str) -> tuple[Grid, list[str]]:
    if name not in grid.heads:
        return grid, []
    place = grid.heads.index(name)
    values = list(dict.fromkeys(text_of(row[place]) for row in grid.rows))
    if len(values) == 1:
        return grid.without([name]), [f"{name}: {values[0]}"]
    if max(map(len, values)) <= _LONG_NAME:
        return grid, []
    numbers = {value: str(number) for number, value in enumerate(values, start=1)}
    rows = [
        tuple(numbers[text_of(cell)] if i == place else cell for i, cell in enumerate(row))
        for row in grid.rows
    ]
    legend = [f"{name} {number}: {value}" for value, number in numbers.items()]
    return replace(grid, rows=rows), legend


def _column_widths(grid: Grid, *, width: int) -> list[int]:
    """Widths that fit the screen, taken from the widest columns, as long as no word is broken."""
    from rich.cells import cell_len

    columns = _columns(grid)
    widths = [max(map(cell_len, column)) for column in columns]
    longest = [max(map(cell_len, " ".join(column).split()), default=0) for column in columns]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        wide = [place for place, least in enumerate(longest) if widths[place] > least]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _table(grid: Grid, *, width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    widths = _column_widths(grid, width=width)
    for head, is_right, columns in zip(grid.heads, grid.is_right, widths, strict=True):
        justify: Literal["right", "left"] = "right" if is_right else "left"
        table.add_column(Text(plain(head)), justify=justify, overflow="fold", width=columns)
    for row in grid.rows:
        table.add_row(*map(_text, row))
    return table


def _text(cell: AnyCell) -> Text:
    from rich.text import Text

    if isinstance(cell, Cell):
        return Text(plain(cell.plain), style=STYLES.get(cell.word, ""))
    return Text(plain(cell))
