"""Panels from the samples sidecar: every step with its warm-up, and how step times are spread.

A trace keeps the extremes of each stretch of steps, so that a stall stays visible however many
steps there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analysis.trials.configuration import Trials
from bench.core.units import format_duration
from bench.report.page.content import Plot, Plots
from bench.report.page.evidence import taking_turns
from bench.report.plots.kinds import Axis, DrawnCurve, line, panels
from bench.report.plots.panel import Value
from bench.report.plots.plots_speed import labels_of
from bench.report.tables.grid import grouped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MAX_CONFIGURATIONS = 6
MAX_TRIALS = 3
MAX_CURVES = 7
MAX_TRACE_POINTS = 240


def steps_of(
    shown: Sequence[Trials], samples: Sequence[Mapping[str, object]], *, labels: Sequence[str]
) -> list[tuple[Trials, list[tuple[Array, Array]]]]:
    """Warm-up and measured step times in seconds of each configuration's usable trials."""
    known = {_key(one, file=labels[int(str(one["file"]))]): one for one in samples}
    found = []
    for one in shown:
        series = []
        for row in one.used:
            sample = known.get(_key(row, file=one.file or labels[0]))
            if sample is None:
                continue
            warmup, steps = _numbers(sample.get("warmup_step_s")), _numbers(sample.get("step_s"))
            if len(steps):
                series.append((warmup, steps))
        if series:
            found.append((one, series))
    return found


def _key(record: Mapping[str, Any], *, file: str) -> tuple[object, ...]:
    return file, *(record.get(name) for name in ("config_hash", "device", "trial", "attempt"))


def _numbers(values: object) -> Array:
    """Figures that can be times, out of whatever the sidecar holds."""
    if not isinstance(values, list):
        return np.empty(0)
    kept = [value for value in values if isinstance(value, float | int)]
    array = np.asarray(kept, dtype=np.float64)
    return array[np.isfinite(array) & (array > 1e-12) & (array < 1e12)]


def trace_plots(found: Sequence[tuple[Trials, list[tuple[Array, Array]]]]) -> Plots | None:
    """Step time over step number, warm-up to the left of zero, a panel per configuration."""
    if not found:
        return None
    chosen = taking_turns(
        found, place=lambda entry: entry[0].text("workload"), limit=MAX_CONFIGURATIONS
    )
    drawn = [
        _trace(f"{one.first['workload']} {label}", series[:MAX_TRIALS])
        for (one, series), label in zip(chosen, labels_of([one for one, _ in chosen]), strict=True)
    ]
    notes = [f"Up to {MAX_TRIALS} trials of each configuration are drawn."]
    if len(found) > len(chosen):
        notes.append(f"{len(chosen)} of {len(found)} configurations are drawn.")
    return Plots(panels=tuple(drawn), note=" ".join(notes))


def thinned(values: Array, *, limit: int = MAX_TRACE_POINTS) -> tuple[Array, Array]:
    """Positions and values with the lowest and highest of each stretch kept."""
    places = np.arange(len(values), dtype=np.float64)
    if len(values) <= limit:
        return places, values
    edges = np.linspace(0, len(values), limit // 2 + 1).astype(int)
    kept = sorted(
        {
            start + int(pick(values[start:stop]))
            for start, stop in zip(edges[:-1], edges[1:], strict=True)
            for pick in (np.argmin, np.argmax)
        }
    )
    return places[kept], values[kept]


def _trace(name: str, series: Sequence[tuple[Array, Array]]) -> Plot:
    curves = []
    for number, (warmup, steps) in enumerate(series, start=1):
        before, after = thinned(warmup), thinned(steps)
        places = np.concatenate([before[0] - len(warmup), after[0]])
        points = _points(places, np.concatenate([before[1], after[1]]) * 1e3)
        first = f"first step {format_duration(float(warmup[0]))}, " if len(warmup) else ""
        words = (
            f"{len(warmup)} warm-up steps, {first}then {len(steps)} steps around "
            f"{_at(steps, 0.5)}, slowest {_at(steps, 1.0)}"
        )
        curves.append(DrawnCurve(label=f"trial {number}", points=points, words=words))
    has_warmup = any(len(warmup) for warmup, _ in series)
    return line(
        f"trace {name}",
        title=name,
        what="Time of every step, warm-up included",
        curves=curves,
        x=Axis(label="step; warm-up is left of 0", scale="order"),
        y=Axis(label="milliseconds", scale="near"),
        plot_inches=1.7,
        reference=0.0 if has_warmup else None,
        legend_columns=len(series),
    )


def _points(places: Array, values: Array) -> list[tuple[float, Value]]:
    pairs = zip(places.tolist(), values.tolist(), strict=True)
    return [(place, (value, None, None)) for place, value in pairs]


def spread_plots(found: Sequence[tuple[Trials, list[tuple[Array, Array]]]]) -> Plots | None:
    """Share of measured steps that took at most so long, a panel per workload."""
    steps = [(one, np.concatenate([steps for _, steps in series])) for one, series in found]
    groups = grouped(steps, lambda pair: pair[0].text("workload"))
    return panels(groups, _spread, most=(MAX_CONFIGURATIONS, MAX_CURVES))


def _spread(workload: str, curves: Sequence[tuple[Trials, Array]]) -> Plot:
    shares = np.concatenate([np.linspace(0.0, 0.98, 99), np.linspace(0.98, 1.0, 41)])
    drawn = []
    for label, (_, steps) in zip(labels_of([one for one, _ in curves]), curves, strict=True):
        words = (
            f"{label}: half within {_at(steps, 0.5)}, 99 % within {_at(steps, 0.99)}, all within "
            f"{_at(steps, 1.0)} ({len(steps)} steps)"
        )
        points = _points(np.quantile(steps, shares) * 1e3, shares)
        drawn.append(DrawnCurve(label=label, points=points, words=words))
    return line(
        f"spread {workload}",
        title=workload,
        what="Distribution of measured step times",
        curves=drawn,
        x=Axis(label="milliseconds a step, all usable trials together", scale="near"),
        y=Axis(
            label="steps at most as slow", scale="zero", form=lambda share: f"{share * 100:.0f} %"
        ),
        plot_inches=1.7,
    )


def _at(steps: Array, share: float) -> str:
    return format_duration(float(np.quantile(steps, share)))
