"""Documents of tools that keep a history, and one of our own.

bmf: `{benchmark: {measure: {value, lower_value, upper_value}}}` for `bencher run --adapter json`. A
measure's name ends in its unit, because Bencher keeps units apart from the figures.
https://bencher.dev/docs/reference/bencher-metric-format

github-action-benchmark: one file for each direction, since the action takes one tool per file. It
compares with the previous point alone; `bench compare` asks whether a difference is real.
https://github.com/benchmark-action/github-action-benchmark#examples

json: configurations, figures and every trial, for scripts that want more than the CSV gives by
itself. Blank cells are left out, unusable rows stand apart with the reason, nothing is rounded.
"""

import json

from bench import __version__
from bench.core.units import counted, format_number
from bench.report.exports.figures import HOW_AND_WHERE, ExportedRows, Figure, Named
from bench.results.schema import SCHEMA_VERSION, Row

GITHUB_FILES = {"bigger": "bigger_is_better.json", "smaller": "smaller_is_better.json"}
"""Direction and the name of its file in a folder that holds both."""
_FACTS = ("workload", "workload_version", "config_hash", "size", "batch", "dtype", *HOW_AND_WHERE)
_GITHUB_FACTS = {
    "mode": "mode",
    "link": "link",
    "layout": "layout",
    "mitigation": "mitigation",
    "workload version": "workload_version",
    "parameters": "params_json",
    "torch": "torch_version",
    "device": "device_name",
}


def bmf_document(selection: ExportedRows) -> str:
    """Bencher Metric Format."""
    content = {
        one.name: {
            figure.key: {"value": figure.value}
            | dict(zip(("lower_value", "upper_value"), figure.ends or (), strict=False))
            for figure in figures
        }
        for one in selection.configurations
        if (figures := one.figures())
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def github_document(selection: ExportedRows, *, direction: str) -> str:
    """Custom JSON of github-action-benchmark for one direction."""
    content = [
        _entry(figure, one=one)
        for one in selection.configurations
        for figure in one.figures()
        if figure.is_bigger_better == (direction == "bigger")
    ]
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _entry(figure: Figure, *, one: Named) -> dict[str, object]:
    facts = {name: one.trials.first.get(column) for name, column in _GITHUB_FACTS.items()}
    reported = {"trials": figure.num_trials, **facts}
    extra = [f"{name}: {value}" for name, value in reported.items() if value is not None]
    entry: dict[str, object] = {
        "name": f"{one.name}: {figure.label} ({figure.unit})",
        "unit": figure.unit,
        "value": figure.value,
        "extra": "\n".join(extra),
    }
    if figure.ends is not None:
        trials = counted(figure.num_trials, "trial")
        entry["range"] = f"95 % interval {' - '.join(map(format_number, figure.ends))}, {trials}"
    return entry


def json_document(selection: ExportedRows) -> str:
    """Our own."""
    content = {
        "made_by": f"gapbench {__version__}",
        "schema_version": SCHEMA_VERSION,
        "configurations": [_configuration(one) for one in selection.configurations],
        "unusable_rows": [_cells(row) for row in selection.unusable],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _configuration(one: Named) -> dict[str, object]:
    return {
        "name": one.name,
        **{name: one.trials.first.get(name) for name in _FACTS},
        "params": json.loads(str(one.trials.first.get("params_json") or "{}")),
        "figures": {figure.key: _told(figure) for figure in one.figures()},
        "trials": [_cells(row) for row in one.trials.used],
    }


def _told(figure: Figure) -> dict[str, object]:
    ends = dict(zip(("low95", "high95"), figure.ends or (None, None), strict=True))
    names = ("unit", "num_trials", "is_bigger_better")
    return {"value": figure.value, **ends, **{name: getattr(figure, name) for name in names}}


def _cells(row: Row) -> dict[str, object]:
    return {name: value for name, value in row.items() if value is not None}
