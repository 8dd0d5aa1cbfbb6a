"""Panels of intervals, one line per configuration: throughput, latency, energy, and ratios.

Throughput, latency and energy have a panel per workload, a comparison one per file. Dots are
geometric means over usable trials with their 95 % interval over trials; a configuration with one
trial has a dot alone. Hollow dots are not real measurements of that device (simulated, emulated,
throttled), and their labels say which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.analysis.comparison.comparison import Compared, Comparison
from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.titles import LONG, differing, title_of
from bench.report.page.content import Plot, Plots
from bench.report.plots.kinds import Axis, DrawnMark, interval, is_drawable, panels
from bench.report.plots.panel import Value, short, value_of
from bench.report.tables.compare_tables import URGENCY
from bench.report.tables.grid import grouped

MAX_PANELS = 6
MAX_LINES = 12
MAX_FILES = 4
MAX_RATIOS = 16


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
    found = ((one, value(one)) for one in shown)
    known = [
        (one, reported)
        for one, reported in found
        if reported is not None and is_drawable(*reported)
    ]
    numbers = {device: n for n, device in enumerate(dict.fromkeys(one.device for one in shown))}

    def panel(workload: str, pairs: Sequence[tuple[Trials, Value]]) -> Plot:
        what = label.format(pairs[0][0].first.get("items_unit") or "item")
        marks = [
            DrawnMark(
                label=name, value=reported, series=numbers[one.device], is_hollow=one.mode != "real"
            )
            for (one, reported), name in zip(
                pairs, labels_of([one for one, _ in pairs]), strict=True
            )
        ]
        axis = Axis(label=what)
        return interval(f"{kind} {workload}", title=workload, what=what, marks=marks, axis=axis)

    chosen = [pair for pair in known if not pair[0].is_wide] or known
    groups = grouped(chosen, lambda pair: pair[0].text("workload"))
    return panels(groups, panel, most=(MAX_PANELS, MAX_LINES))


def labels_of(shown: Sequence[Trials]) -> list[str]:
    """What distinguishes configurations of one workload, and no more than that."""
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
    drawable = (row for row in known if is_drawable(row.ratio, row.low, row.high))
    urgent = sorted(drawable, key=lambda row: URGENCY[row.verdict])
    found = grouped(urgent, lambda row: row.b.file)
    return panels(
        {file: found[file] for file in comparison.labels if file in found},
        lambda file, rows: _ratios(comparison, file=file, rows=rows),
        most=(MAX_FILES, MAX_RATIOS),
        what="ratios",
    )


def _ratios(comparison: Comparison, *, file: str, rows: Sequence[Compared]) -> Plot:
    metric = comparison.metric.name
    shown = ("size", "dtype", "batch", "mode", "device_count", "link")
    has_devices = len({row.b.device for row in rows}) > 1
    verdicts = dict.fromkeys(row.verdict for row in rows)
    marks = [
        DrawnMark(
            label=title_of(row.a.trials.first, shown=shown)
            + (f" {short(row.b.device, length=14)}" if has_devices else ""),
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
    axis = Axis(
        label=f"{metric} over the first file's; under 1 is better", scale="near", low=0.9, high=1.1
    )
    return interval(
        f"compare {file}",
        title=f"{file} over {comparison.labels[0]}",
        what=f"Ratio of {metric} with 95 % interval; the grey bar is the threshold",
        marks=marks,
        axis=axis,
        reference=1.0,
        legend=[(word or "ratio only", URGENCY[word]) for word in verdicts],
    )
