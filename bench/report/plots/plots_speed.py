"""Panels of intervals, one line per configuration, and of every step from the samples sidecar.

Throughput, latency and energy have a panel per workload, a comparison one per file. Dots are
geometric means over usable trials with their 95 % interval over trials; a configuration with one
trial has a dot alone. Hollow dots are not real measurements of that device (simulated, emulated,
throttled), and their labels say which. A trace keeps the extremes of each stretch of steps, so that
a stall stays visible however many steps there are.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.comparison.comparison import Compared, Comparison
from bench.analysis.trials.configuration import Trials, grouped
from bench.analysis.trials.titles import LONG, differing, title_of
from bench.core.units import counted, format_duration
from bench.report.page.content import Plot, Plots
from bench.report.page.evidence import taking_turns
from bench.report.plots import kinds
from bench.report.plots.kinds import Axis, DrawnCurve, DrawnMark
from bench.report.plots.panel import Value, short, value_of
from bench.report.tables.compare_tables import URGENCY

Array = NDArray[np.float64]
Traced = tuple[Trials, list[tuple[Array, Array]]]
"""A configuration, and the warm-up and measured step times in seconds of its usable trials."""
MAX_PANELS = 6
MAX_LINES = 12
MAX_FILES = 4
MAX_RATIOS = 16
MAX_TRIALS = 3
MAX_CURVES = 7
MAX_TRACE_POINTS = 240


def throughput_plots(shown: Sequence[Trials]) -> Plots | None:
    """Items per second by device."""
    return _panels(shown, "throughput", "{}/s; more is faster", _mean("throughput_per_s"))


def energy_plots(shown: Sequence[Trials]) -> Plots | None:
    """Energy per item by device."""
    return _panels(shown, "energy", "J/{}; less is better", _mean("energy_per_item_j"))


def step_plots(shown: Sequence[Trials]) -> Plots | None:
    """Median step with its 5th to 95th percentile."""
    label = "ms a step, 5th to 95th percentile; less is faster"
    return _panels(shown, "steps", label, _step_range)


def _mean(column: str) -> Callable[[Trials], Value | None]:
    return lambda one: value_of(one.estimate(column))


def _step_range(shown: Trials) -> Value | None:
    names = ("step_median_ms", "step_p05_ms", "step_p95_ms")
    middle, low, high = map(shown.mean, names)
    return None if middle is None else (middle, low, high)


def _panels(
    shown: Sequence[Trials], kind: str, label: str, value: Callable[[Trials], Value | None]
) -> Plots | None:
    """Configurations of one device and no modelled link, unless there is nothing else."""
    known = [(one, it) for one in shown if (it := value(one)) and kinds.is_drawable(*it)]
    numbers = {device: n for n, device in enumerate(dict.fromkeys(one.device for one in shown))}

    def panel(workload: str, pairs: Sequence[tuple[Trials, Value]]) -> Plot:
        what = label.format(pairs[0][0].first.get("items_unit") or "item")
        marks = [
            DrawnMark(
                label=name, value=it, series=numbers[one.device], is_hollow=one.mode != "real"
            )
            for (one, it), name in zip(pairs, labels_of(pairs), strict=True)
        ]
        named, axis = f"{kind} {workload}", Axis(label=what)
        return kinds.interval(named, title=workload, what=what, marks=marks, axis=axis)

    chosen = [pair for pair in known if not pair[0].is_wide] or known
    groups = grouped(chosen, lambda pair: pair[0].text("workload"))
    return kinds.panels(groups, panel, most=(MAX_PANELS, MAX_LINES))


def labels_of(pairs: Sequence[tuple[Trials, object]]) -> list[str]:
    """What distinguishes configurations of one workload, and no more than that."""
    shown = [one for one, _ in pairs]
    params = (*LONG, *differing(one.first for one in shown))
    titles = [title_of(one.first, shown=params).split(" ") for one in shown]
    common = set(titles[0]).intersection(*titles) if titles else set()
    has_devices = len({one.device for one in shown}) > 1
    labels = []
    for one, words in zip(shown, titles, strict=True):
        kept = [word for word in words[1:] if word not in common]
        device = one.device if has_devices or not kept else ""
        # What distinguishes lines must survive when a label is cut.
        device = short(device, length=24) if kept or one.mode != "real" else device
        mode = "" if one.mode == "real" else f"[{one.mode}]"
        parts = [device, *(word for word in kept if word != mode), one.file, mode]
        labels.append(" ".join(part for part in parts if part))
    return labels


def compare_plots(comparison: Comparison) -> Plots | None:
    """Ratio of each later file to the first, a panel per file, the most urgent lines first."""
    known = (row for row in comparison.rows if row.ratio is not None)
    drawable = (row for row in known if kinds.is_drawable(row.ratio, row.low, row.high))
    urgent = sorted(drawable, key=lambda row: URGENCY[row.verdict])
    found = grouped(urgent, lambda row: row.b.file)
    return kinds.panels(
        {file: found[file] for file in comparison.labels if file in found},
        lambda file, rows: _ratios(comparison, file=file, rows=rows),
        most=(MAX_FILES, MAX_RATIOS),
        what="ratios",
    )


def _ratios(comparison: Comparison, *, file: str, rows: Sequence[Compared]) -> Plot:
    metric = comparison.metric.name
    shown = ("size", "dtype", "batch", "mode", "device_count", "link")
    has_devices = len({row.b.trials.one_device for row in rows}) > 1
    verdicts = dict.fromkeys(row.verdict for row in rows)
    marks = [
        DrawnMark(
            label=title_of(row.a.trials.first, shown=shown)
            + (f" {short(row.b.trials.one_device, length=14)}" if has_devices else ""),
            value=(row.ratio or 1.0, row.low, row.high),
            series=URGENCY[row.verdict],
            is_hollow=row.a.trials.mode != "real",
            band=(1.0 / (1.0 + row.threshold_frac), 1.0 + row.threshold_frac)
            if row.verdict
            else None,
            remark=row.verdict or "ratio only",
        )
        for row in rows
    ]
    label = f"{metric} over the first file's; under 1 is better"
    return kinds.interval(
        f"compare {file}",
        title=f"{file} over {comparison.labels[0]}",
        what=f"Ratio of {metric} with 95 % interval; the grey bar is the threshold",
        marks=marks,
        axis=Axis(label=label, scale="near", low=0.9, high=1.1),
        reference=1.0,
        legend=[(word or "ratio only", URGENCY[word]) for word in verdicts],
    )


def steps_of(
    shown: Sequence[Trials], samples: Sequence[Mapping[str, object]], *, labels: Sequence[str]
) -> list[Traced]:
    """What the samples have of each configuration, where they have steps of it."""
    known = {
        key_of(one, file=labels[int(str(one["file"]))]): (
            _numbers(one.get("warmup_step_s")),
            _numbers(one.get("step_s")),
        )
        for one in samples
    }
    found = []
    for one in shown:
        keys = (key_of(row, file=one.file or labels[0]) for row in one.used)
        series = [known[key] for key in keys if key in known and len(known[key][1])]
        if series:
            found.append((one, series))
    return found


def key_of(record: Mapping[str, Any], *, file: str) -> tuple[object, ...]:
    """What ties a line of a sidecar to the row of its trial."""
    return file, *(record.get(name) for name in ("config_hash", "device", "trial", "attempt"))


def _numbers(values: object) -> Array:
    """Figures that can be times, out of whatever the sidecar holds."""
    if not isinstance(values, list):
        return np.empty(0)
    kept = [value for value in values if isinstance(value, float | int)]
    array = np.asarray(kept, dtype=np.float64)
    return array[np.isfinite(array) & (array > 1e-12) & (array < 1e12)]


def trace_plots(found: Sequence[Traced]) -> Plots | None:
    """Step time over step number, warm-up to the left of zero, a panel per configuration."""
    if not found:
        return None
    chosen = taking_turns(found, place=lambda entry: entry[0].text("workload"), limit=MAX_PANELS)
    drawn = [
        _trace(f"{one.first['workload']} {label}", series[:MAX_TRIALS])
        for (one, series), label in zip(chosen, labels_of(chosen), strict=True)
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
    stretches = [slice(*ends) for ends in pairwise(edges)]
    picked = [one.start + pick(values[one]) for one in stretches for pick in (np.argmin, np.argmax)]
    kept = sorted(set(picked))
    return places[kept], values[kept]


def _trace(name: str, series: Sequence[tuple[Array, Array]]) -> Plot:
    curves = []
    for number, (warmup, steps) in enumerate(series, start=1):
        before, after = thinned(warmup), thinned(steps)
        places = np.concatenate([before[0] - len(warmup), after[0]])
        points = _points(places, np.concatenate([before[1], after[1]]) * 1e3)
        first = f"first step {format_duration(float(warmup[0]))}, " if len(warmup) else ""
        words = (
            f"{counted(len(warmup), 'warm-up step')}, {first}then "
            f"{counted(len(steps), 'step')} around {_at(steps, 0.5)}, slowest {_at(steps, 1.0)}"
        )
        curves.append(DrawnCurve(label=f"trial {number}", points=points, words=words))
    has_warmup = any(len(warmup) for warmup, _ in series)
    return kinds.line(
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


def spread_plots(found: Sequence[Traced]) -> Plots | None:
    """Share of measured steps that took at most so long, a panel per workload."""
    steps = [(one, np.concatenate([steps for _, steps in series])) for one, series in found]
    groups = grouped(steps, lambda pair: pair[0].text("workload"))
    return kinds.panels(groups, _spread, most=(MAX_PANELS, MAX_CURVES))


def _spread(workload: str, curves: Sequence[tuple[Trials, Array]]) -> Plot:
    shares = np.concatenate([np.linspace(0.0, 0.98, 99), np.linspace(0.98, 1.0, 41)])
    drawn = []
    for label, (_, steps) in zip(labels_of(curves), curves, strict=True):
        words = (
            f"{label}: half within {_at(steps, 0.5)}, 99 % within {_at(steps, 0.99)}, all within "
            f"{_at(steps, 1.0)} ({counted(len(steps), 'step')})"
        )
        points = _points(np.quantile(steps, shares) * 1e3, shares)
        drawn.append(DrawnCurve(label=label, points=points, words=words))
    share = Axis(label="steps at most as slow", scale="zero", form=lambda one: f"{one * 100:.0f} %")
    return kinds.line(
        f"spread {workload}",
        title=workload,
        what="Distribution of measured step times",
        curves=drawn,
        x=Axis(label="milliseconds a step, all usable trials together", scale="near"),
        y=share,
        plot_inches=1.7,
    )


def _at(steps: Array, share: float) -> str:
    return format_duration(float(np.quantile(steps, share)))
