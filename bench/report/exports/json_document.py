"""One JSON document of our own: configurations, their figures with intervals, and every trial.

For scripts that want more than the CSV gives by itself and less than a comparison. Blank cells are
left out, rows that must not be used stand apart with the reason, and nothing is rounded.
"""

from __future__ import annotations

import json

from bench import __version__
from bench.report.exports.figures import HOW_AND_WHERE, Named, configurations
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
    content = {
        "made_by": f"gapbench {__version__}",
        "schema_version": SCHEMA_VERSION,
        "configurations": [_configuration(one) for one in configurations(selection.usable)],
        "unusable_rows": [_cells(row) for row in selection.unusable],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _configuration(one: Named) -> dict[str, object]:
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
        "trials": [_cells(row) for row in one.trials.used],
    }


def _cells(row: Row) -> dict[str, object]:
    return {name: value for name, value in row.items() if value is not None}
