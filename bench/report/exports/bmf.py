"""Bencher Metric Format: `bencher run --adapter json --file FILE` reads it.

`{benchmark: {measure: {value, lower_value, upper_value}}}`, where the bounds are our 95 % interval
over trials; a single trial has none. A measure's name ends in its unit, because Bencher keeps units
apart from the figures.
https://bencher.dev/docs/reference/bencher-metric-format
"""

from __future__ import annotations

import json

from bench.report.exports.figures import Figure, configurations
from bench.report.exports.selection import Selection


def document(selection: Selection) -> str:
    """Return the file's text."""
    content = {
        one.name: {figure.key: _metric(figure) for figure in figures}
        for one in configurations(selection.usable)
        if (figures := one.figures())
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _metric(figure: Figure) -> dict[str, float]:
    metric = {"value": figure.value}
    if figure.low is not None and figure.high is not None:
        metric |= {"lower_value": figure.low, "upper_value": figure.high}
    return metric
