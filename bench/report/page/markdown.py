"""The same report as Markdown: every table and note; plots are told in words.

For pull requests and wikis, which show neither scripts nor inline pictures.
"""

from __future__ import annotations

import json

from bench.report.page.content import Facts, Part, Plots, Prose, Report
from bench.report.tables.grid import Grid, markdown_cell, markdown_table

GENERATOR = "<!-- made by bench report -->"
"""First line, by which a file is known to be a report."""


def markdown(report: Report) -> str:
    """Markdown of a report."""
    parts = [GENERATOR, f"# {markdown_cell(report.title)}"]
    parts += [markdown_cell(line) for line in report.summary]
    for section in report.sections:
        parts.append(f"## {markdown_cell(section.title)}")
        parts += [text for one in section.parts if (text := _part(one))]
    parts.append(f"Made by {markdown_cell(report.made_by)}.")
    return "\n\n".join(parts) + "\n"


def _part(one: Part) -> str:
    match one:
        case Prose():
            mark = "- " if one.is_list else ""
            return ("\n" if one.is_list else "\n\n").join(
                line if line.endswith(":") and one.is_list else mark + line
                for line in map(markdown_cell, one.lines)
            )
        case Plots():
            return _words(one)
        case Facts():
            return _facts(one)
        case Grid():
            return markdown_table(one)


def _words(plots: Plots) -> str:
    lines = [
        f"- {markdown_cell(plot.title)}: {markdown_cell(plot.description)}" for plot in plots.panels
    ]
    lines += ["", markdown_cell(plots.note)] if plots.note else []
    return "\n".join(lines)


def _facts(facts: Facts) -> str:
    text = json.dumps(facts.facts, indent=1, sort_keys=True, default=str)
    # Four spaces make code of it, whatever is inside; a fence could be closed from within.
    body = "\n".join(f"    {line}" for line in text.splitlines())
    return f"{markdown_cell(facts.title)}:\n\n{body}"
