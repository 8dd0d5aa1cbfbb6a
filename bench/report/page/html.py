"""Parts of a report as HTML fragments; every text out of a file goes through `text`.

Modes other than real become badges and status and verdict words get a class, wherever they stand.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from bench.analysis.verdicts import VERDICTS
from bench.report.page.content import Facts, Part, Plot, Plots, Prose, Section
from bench.report.tables.grid import Grid, plain
from bench.report.tables.sort_keys import sort_key
from bench.results.describe import STATUSES

MAX_LIST_ITEMS = 20
MAX_DEPTH = 6
MAX_TEXT_CHARACTERS = 400
_BADGE = re.compile(r"\[(simulated|emulated|throttled)((?: [^\]]*)?)\]")
_INTERVAL = re.compile(r"([^\[\]()]+) (\[[^\[\]]*\]|\([^()]*\))")
_WORDS = frozenset((*VERDICTS, *STATUSES))


def text(value: str) -> str:
    """Escaped text; control characters are replaced, and very long text is cut."""
    shown = plain(" ".join(value.split()))
    if len(shown) > MAX_TEXT_CHARACTERS:
        shown = shown[: MAX_TEXT_CHARACTERS - 1] + "…"
    return html.escape(shown)


def marked(value: str) -> str:
    """Escaped text with badges for modes that are not real."""
    return _BADGE.sub(r'<span class="badge \1">\1\2</span>', text(value))


def section(found: Section) -> str:
    """A section with its anchor."""
    name = html.escape(found.name)
    body = "\n".join(part(one) for one in found.parts)
    return (
        f'<section id="{name}" aria-labelledby="{name}-heading">\n'
        f'<h2 id="{name}-heading">{text(found.title)}</h2>\n{body}\n</section>'
    )


def part(one: Part) -> str:
    """One part of a section."""
    match one:
        case Prose():
            return _prose(one)
        case Plots():
            return _plots(one)
        case Facts():
            return _facts(one)
        case Grid():
            return _grid(one)


def _prose(prose: Prose) -> str:
    kind = ' class="warning"' if prose.is_warning else ""
    if not prose.is_list:
        return "\n".join(f"<p{kind}>{marked(line)}</p>" for line in prose.lines)
    lines = list(prose.lines)
    lead = f"<p{kind}>{marked(lines.pop(0))}</p>\n" if lines and lines[0].endswith(":") else ""
    items = "\n".join(f"<li>{marked(line)}</li>" for line in lines)
    return f"{lead}<ul{kind}>\n{items}\n</ul>"


def _plots(plots: Plots) -> str:
    panels = "\n".join(_panel(panel) for panel in plots.panels)
    note = f'\n<p class="note">{text(plots.note)}</p>' if plots.note else ""
    return f'<div class="panels">\n{panels}\n</div>{note}'


def _panel(plot: Plot) -> str:
    return f"<figure><figcaption>{marked(plot.title)}</figcaption>{plot.svg}</figure>"


def _grid(grid: Grid) -> str:
    name = text(grid.title) or "Table"
    caption = f"<caption>{text(grid.title)}</caption>" if grid.title else ""
    is_right = [head.endswith(">") for head in grid.heads]
    heads = "".join(
        f'<th scope="col"{_side(right)}>{text(head.rstrip(">"))}</th>'
        for head, right in zip(grid.heads, is_right, strict=True)
    )
    rows = "\n".join(_row(row, is_right=is_right) for row in grid.rows)
    notes = "\n".join(f'<p class="note">{marked(note)}</p>' for note in grid.notes)
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{name}">\n<table>{caption}\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n{notes}"
    )


def _width(value: str) -> str:
    for name, characters in (("long", 40), ("medium", 16)):
        if len(value) > characters:
            return f' class="{name}"'
    return ""


def _side(is_right: bool) -> str:
    return ' class="right"' if is_right else ""


def _row(row: tuple[str, ...], *, is_right: list[bool]) -> str:
    cells = []
    for value, right in zip(row, is_right, strict=True):
        key = sort_key(value) if right else None
        sort = "" if key is None else f' data-key="{key!r}"'
        shown = _quantity(value) if right else _cell(value)
        kind = _side(right) or _width(value)
        cells.append(f"<td{kind}{sort}>{shown}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: str) -> str:
    if value in _WORDS:
        kind = value.lower().replace(" ", "-")
        return f'<span class="word {kind}">{value}</span>'
    return marked(value)


def _quantity(value: str) -> str:
    """A figure and its interval, between which a narrow column may break."""
    interval = _INTERVAL.fullmatch(value)
    if interval is None:
        return f"<span>{marked(value)}</span>"
    return f"<span>{text(interval[1])}</span> <span>{text(interval[2])}</span>"


def _facts(facts: Facts) -> str:
    body = _value(facts.facts, depth=0)
    return f"<details><summary>{text(facts.title)}</summary>{body}</details>"


def _value(value: object, *, depth: int) -> str:
    if depth > MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        if not value:
            return "none"
        inner = "".join(
            f"<dt>{text(str(key))}</dt><dd>{_value(item, depth=depth + 1)}</dd>"
            for key, item in value.items()
        )
        return f"<dl>{inner}</dl>"
    if isinstance(value, list | tuple):
        if not value:
            return "none"
        shown = [_value(item, depth=depth + 1) for item in value[:MAX_LIST_ITEMS]]
        hidden = len(value) - len(shown)
        shown += [f"and {hidden} more"] if hidden > 0 else []
        return "<ul>" + "".join(f"<li>{item}</li>" for item in shown) + "</ul>"
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text(str(value)) or "blank"
