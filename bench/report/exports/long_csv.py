"""Long CSV: one line per trial and figure, for tools that pivot (and for `groupby`).

A figure is named as its column is in the result file, unit included. A row that must not be used
keeps one line with its status and reasons and no figure, so that no trial is lost and no invalid
figure is averaged by accident.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.report.exports.figures import configurations, name_of
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
    "mode",
    "link",
    "parallel",
    "layout",
    "schedule",
    "mitigation",
    "bucket_bytes",
    "grad_accum",
    "device",
    "device_name",
    "device_count",
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
    return b"".join(_lines(selection)).decode()


def _lines(selection: Selection) -> Iterator[bytes]:
    yield format_record(["name", *FACTS, "figure", "value"])
    for one in configurations(selection.usable):
        for row in one.line.usable:
            facts = _facts(row, name=one.name)
            for column in FIGURES:
                if row.get(column.name) is not None:
                    value = format_cell(row[column.name], column)
                    yield format_record([*facts, column.name, value])
    for row in selection.unusable:
        yield format_record([*_facts(row, name=name_of(row)), "", ""])


def _facts(row: Row, *, name: str) -> list[str]:
    facts = [format_cell(row.get(fact), BY_NAME[fact]) for fact in FACTS]
    return [format_cell(name, _NAME), *facts]
