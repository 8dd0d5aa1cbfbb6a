"""Panel of a comparison: ratios with intervals against the threshold that decides.

The most urgent verdicts come first, since only some of many ratios can be drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.comparison.comparison import Compared, Comparison
from bench.analysis.trials.titles import title_of
from bench.report.page.content import Plot, Plots
from bench.report.plots.kinds import Axis, DrawnMark, interval, is_drawable, panels
from bench.report.plots.panel import short
from bench.report.tables.compare_tables import URGENCY
from bench.report.tables.grid import grouped

MAX_PANELS = 4
MAX_LINES = 16


def compare_plots(comparison: Comparison) -> Plots | None:
    """Ratio of each later file to the first, a panel per file, the most urgent lines first."""
    known = (row for row in comparison.rows if row.ratio is not None)
    drawable = (row for row in known if is_drawable(row.ratio, row.low, row.high))
    urgent = sorted(drawable, key=lambda row: URGENCY[row.verdict])
    found = grouped(urgent, lambda row: row.b.file)
    return panels(
        {file: found[file] for file in comparison.labels if file in found},
        lambda file, rows: _panel(comparison, file=file, rows=rows),
        most=(MAX_PANELS, MAX_LINES),
        what="ratios",
    )


def _panel(comparison: Comparison, *, file: str, rows: Sequence[Compared]) -> Plot:
    metric = comparison.metric.name
    has_devices = len({row.b.device for row in rows}) > 1
    verdicts = dict.fromkeys(row.verdict for row in rows)
    marks = [
        DrawnMark(
            label=_label(row, has_devices=has_devices),
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


def _label(row: Compared, *, has_devices: bool) -> str:
    layout = ("mode", "device_count", "link")
    title = title_of(row.a.trials.first, shown=("size", "dtype", "batch", *layout))
    return f"{title} {short(row.b.device, length=14)}" if has_devices else title
