"""One JSON document of our own: configurations, their figures with intervals, and every trial.

For scripts that want more than the CSV gives by itself and less than a comparison. Blank cells are
left out, rows that must not be used stand apart with the reason, and nothing is rounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from bench import __version__
from bench.report.exports.figures import HOW_AND_WHERE, Configuration, configurations
from bench.report.exports.selection import Selection
from bench.results.schema import SCHEMA_VERSION, Row

_FACTS = (
    "workload",
    "workload_version",
    "config_hash",
    "size",
    "batch",
    "dtype",
    *HOW_AND_WHERE,
)


def document(selection: Selection) -> str:
    """Return the file's text."""
    return "".join(pieces(selection))


def pieces(selection: Selection) -> Iterator[str]:
    """Yield the file's text: a line for each configuration, and for each unusable row."""
    yield f'{{\n"made_by": {_json(f"gapbench {__version__}")},\n'
    yield f'"schema_version": {_json(SCHEMA_VERSION)},\n"configurations": ['
    yield from _lines(_configuration(one) for one in configurations(selection.usable))
    yield '],\n"unusable_rows": ['
    yield from _lines(_cells(row) for row in selection.unusable)
    yield "]\n}\n"


def _lines(entries: Iterable[object]) -> Iterator[str]:
    between = "\n"
    for entry in entries:
        yield between + _json(entry)
        between = ",\n"


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _configuration(one: Configuration) -> dict[str, object]:
    return {
        "name": one.name,
        **{name: one.first.get(name) for name in _FACTS},
        "params": json.loads(str(one.first.get("params_json") or "{}")),
        "figures": {
            figure.key: {
                "value": figure.value,
                "low95": figure.low,
                "high95": figure.high,
                "unit": figure.unit,
                "num_trials": figure.num_trials,
                "is_bigger_better": figure.is_bigger_better,
            }
            for figure in one.figures()
        },
        "trials": [_cells(row) for row in one.line.usable],
    }


def _cells(row: Row) -> dict[str, object]:
    return {name: value for name, value in row.items() if value is not None}
