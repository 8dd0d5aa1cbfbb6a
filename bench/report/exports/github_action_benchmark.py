"""Custom JSON of github-action-benchmark, one file for each direction.

The action takes one tool per file: `customBiggerIsBetter` for throughput, `customSmallerIsBetter`
for times, energy and memory. `range` is text that the action shows beside the value: our 95 %
interval over trials. The action compares with the previous point alone; `bench compare` is the one
that asks whether a difference is real.
https://github.com/benchmark-action/github-action-benchmark#examples
"""

from __future__ import annotations

import json

from bench.core.units import format_number
from bench.report.exports.figures import Figure, Named, configurations
from bench.report.exports.selection import Selection

FILES = {"bigger": "bigger_is_better.json", "smaller": "smaller_is_better.json"}
"""Direction and the name of its file in a folder that holds both."""


def document(selection: Selection, *, direction: str) -> str:
    """Return the text of the file for one direction."""
    content = [
        _entry(figure, one=one)
        for one in configurations(selection.usable)
        for figure in one.figures()
        if figure.is_bigger_better == (direction == "bigger")
    ]
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _entry(figure: Figure, *, one: Named) -> dict[str, object]:
    row = one.first
    trials = f"{figure.num_trials} trial" + ("s" if figure.num_trials > 1 else "")
    entry: dict[str, object] = {
        "name": f"{one.name}: {figure.label} ({figure.unit})",
        "unit": figure.unit,
        "value": figure.value,
        "extra": "\n".join(
            f"{name}: {value}"
            for name, value in (
                ("trials", figure.num_trials),
                ("mode", row.get("mode")),
                ("link", row.get("link")),
                ("layout", row.get("layout")),
                ("mitigation", row.get("mitigation")),
                ("workload version", row.get("workload_version")),
                ("parameters", row.get("params_json")),
                ("torch", row.get("torch_version")),
                ("device", row.get("device_name")),
            )
            if value is not None
        ),
    }
    if figure.low is not None and figure.high is not None:
        low, high = format_number(figure.low), format_number(figure.high)
        entry["range"] = f"95 % interval {low} - {high}, {trials}"
    return entry
