"""Long CSV: one line per trial and figure, for tools that pivot (and for `groupby`).

A figure is named as its column is in the result file, unit included. A row that must not be used
keeps one line with its status and reasons and no figure, so that no trial is lost and no invalid
figure is averaged by accident.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.report.exports.figures import HOW_AND_WHERE, configurations, name_of
from bench.report.exports.selection import Selection
from bench.results.csvio import format_cell, format_record
from bench.results.schema import BY_NAME, COLUMNS, Column, Row

_GROUPS = (
    "speed",
    "communication",
    "warm-up and cold costs",
    "data loading",
    "work",
    "memory",
    "energy",
    "conditions",
    "correctness",
)
FIGURES: tuple[Column, ...] = tuple(
    column for column in COLUMNS if column.group in _GROUPS and column.kind in ("int", "float")
)
"""Columns that become lines."""
FACTS = (
    "schema_version",
    "run_id",
    "started_utc",
    "workload",
    "workload_version",
    "size",
    "config_hash",
    "dtype",
    "batch",
    *HOW_AND_WHERE,
    "trial",
    "attempt",
    "status",
    "reasons",
    "items_unit",
)
"""Columns that every line repeats, after the configuration's name."""
_NAME = Column("name", "str", "", "")


def document(selection: Selection) -> str:
    """Return the file's text."""
    return "".join(pieces(selection))


def pieces(selection: Selection) -> Iterator[str]:
    """Yield the file's text: the lines of one trial after the other."""
    yield format_record(["name", *FACTS, "figure", "value"]).decode()
    for one in configurations(selection.usable):
        for row in one.line.usable:
            facts = _facts(row, name=one.name)
            # Names of columns and figures need no quotes, and the facts are the same on each line.
            yield "".join(
                f"{facts},{column.name},{format_cell(value, column)}\n"
                for column in FIGURES
                if (value := row.get(column.name)) is not None
            )
    for row in selection.unusable:
        yield f"{_facts(row, name=name_of(row))},,\n"


def _facts(row: Row, *, name: str) -> str:
    facts = [format_cell(row.get(fact), BY_NAME[fact]) for fact in FACTS]
    return format_record([format_cell(name, _NAME), *facts]).decode().removesuffix("\n")
