"""Panels from the samples sidecar: every step with its warm-up, and how step times are spread.

A trace keeps the extremes of each stretch of steps, so that a stall stays visible however many
steps there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.core.units import format_duration
from bench.report.page.content import Plot, Plots
from bench.report.page.evidence import Shown
from bench.report.plots.marks import label_below, span_axis
from bench.report.plots.panel import INK, color_of, draw, short
from bench.report.plots.plots_speed import labels_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MAX_CONFIGURATIONS = 6
MAX_TRIALS = 3
MAX_CURVES = 7
MAX_TRACE_POINTS = 240
_DASHES = ("-", "--", "-.", ":")


def steps_of(
    shown: Sequence[Shown], samples: Sequence[Mapping[str, object]], *, labels: Sequence[str]
) -> list[tuple[Shown, list[tuple[Array, Array]]]]:
    """Warm-up and measured step times in seconds of each configuration's usable trials."""
    known = {_key(one, file=labels[int(str(one["file"]))]): one for one in samples}
    found = []
    for one in shown:
        series = []
        for row in one.line.usable:
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


def trace_plots(found: Sequence[tuple[Shown, list[tuple[Array, Array]]]]) -> Plots | None:
    """Step time over step number, warm-up to the left of zero, a panel per configuration."""
    if not found:
        return None
    turns: dict[str, int] = {}
    ranked = []
    for place, (one, series) in enumerate(found):
        workload = str(one.line.first["workload"])
        turns[workload] = turns.get(workload, 0) + 1
        ranked.append((turns[workload], place, (one, series)))
    # Every workload once before any twice, then in their order of appearance.
    kept = sorted(ranked, key=lambda entry: entry[:2])[:MAX_CONFIGURATIONS]
    chosen = [entry[2] for entry in sorted(kept, key=lambda entry: entry[1])]
    labels = labels_of([one for one, _ in chosen])
    panels = [
        _trace(f"{one.line.first['workload']} {label}", series[:MAX_TRIALS])
        for (one, series), label in zip(chosen, labels, strict=True)
    ]
    notes = [f"Up to {MAX_TRIALS} trials of each configuration are drawn."]
    if len(found) > len(chosen):
        notes.append(f"{len(chosen)} of {len(found)} configurations are drawn.")
    return Plots(panels=tuple(panels), note=" ".join(notes))


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
    every = np.concatenate([part for pair in series for part in pair]) * 1e3

    def paint(axes: Axes) -> None:
        for number, (warmup, steps) in enumerate(series):
            before, after = thinned(warmup), thinned(steps)
            places = np.concatenate([before[0] - len(warmup), after[0]])
            axes.plot(
                places,
                np.concatenate([before[1], after[1]]) * 1e3,
                color=color_of(number),
                linestyle=_DASHES[number % len(_DASHES)],
                linewidth=0.9,
                label=f"trial {number + 1}",
            )
        span_axis(axes, values=[float(every.min()), float(every.max())], which="y")
        if any(len(warmup) for warmup, _ in series):
            axes.axvline(0.0, color=INK, linewidth=1, linestyle=":")
        label_below(axes, "step; warm-up is left of 0")
        axes.set_ylabel("milliseconds")

    told = "; ".join(_told(warmup, steps) for warmup, steps in series)
    return draw(
        f"trace {name}",
        title=name,
        description=f"Time of every step, warm-up included, logarithmic. {told}.",
        plot_inches=1.7,
        num_legend_lines=1 if len(series) > 1 else 0,
        legend_columns=len(series),
        paint=paint,
    )


def _told(warmup: Array, steps: Array) -> str:
    first = f"first step {format_duration(float(warmup[0]))}, " if len(warmup) else ""
    return (
        f"{len(warmup)} warm-up steps, {first}then {len(steps)} steps around "
        f"{format_duration(float(np.median(steps)))}, slowest {format_duration(float(steps.max()))}"
    )


def spread_plots(found: Sequence[tuple[Shown, list[tuple[Array, Array]]]]) -> Plots | None:
    """Share of measured steps that took at most so long, a panel per workload."""
    by_workload: dict[str, list[tuple[Shown, Array]]] = {}
    for one, series in found:
        steps = np.concatenate([steps for _, steps in series])
        by_workload.setdefault(str(one.line.first["workload"]), []).append((one, steps))
    if not by_workload:
        return None
    chosen = [
        (workload, curves[:MAX_CURVES])
        for workload, curves in list(by_workload.items())[:MAX_CONFIGURATIONS]
    ]
    panels = [_spread(workload, curves) for workload, curves in chosen]
    drawn, total = sum(len(curves) for _, curves in chosen), len(found)
    note = "" if drawn == total else f"{drawn} of {total} configurations are drawn."
    return Plots(panels=tuple(panels), note=note)


def _spread(workload: str, curves: Sequence[tuple[Shown, Array]]) -> Plot:
    labels = labels_of([one for one, _ in curves])
    shares = np.concatenate([np.linspace(0.0, 0.98, 99), np.linspace(0.98, 1.0, 41)])
    quantiles = [np.quantile(steps, shares) * 1e3 for _, steps in curves]

    def paint(axes: Axes) -> None:
        for number, (label, values) in enumerate(zip(labels, quantiles, strict=True)):
            axes.plot(
                values,
                shares,
                color=color_of(number),
                linestyle=_DASHES[number % len(_DASHES)],
                label=short(label, length=60),
            )
        ends = [float(end) for values in quantiles for end in (values[0], values[-1])]
        span_axis(axes, values=ends, which="x")
        axes.set_ylim(0.0, 1.02)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share * 100:.0f} %")
        label_below(axes, "milliseconds a step, all usable trials together")
        axes.set_ylabel("steps at most as slow")

    told = "; ".join(
        f"{label}: half within {_at(steps, 0.5)}, 99 % within {_at(steps, 0.99)}, all within "
        f"{_at(steps, 1.0)} ({len(steps)} steps)"
        for label, (_, steps) in zip(labels, curves, strict=True)
    )
    return draw(
        f"spread {workload}",
        title=workload,
        description=f"Distribution of measured step times. {told}.",
        plot_inches=1.7,
        num_legend_lines=len(curves),
        paint=paint,
    )


def _at(steps: Array, share: float) -> str:
    return format_duration(float(np.quantile(steps, share)))
