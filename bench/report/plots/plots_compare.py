"""Panel of a comparison: ratios with intervals against the threshold that decides.

The most urgent verdicts come first, since only some of many ratios can be drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.analysis.comparison import Compared, Comparison
from bench.analysis.verdicts import VERDICTS
from bench.report.page.content import Plot, Plots
from bench.report.plots.marks import dots, is_drawable, label_below
from bench.report.plots.panel import INK, ROW_INCHES, color_of, draw, label_inches, marker_of, short
from bench.report.plots.plots_speed import in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 4
MAX_LINES = 16
_PLACES = {verdict: place for place, verdict in enumerate((*VERDICTS, ""))}


def compare_plots(comparison: Comparison) -> Plots | None:
    """Ratio of each later file to the first, a panel per file, the most urgent lines first."""
    by_file: dict[str, list[Compared]] = {}
    for row in comparison.rows:
        if row.ratio is not None and is_drawable(row.ratio, row.low, row.high):
            by_file.setdefault(row.b.file, []).append(row)
    if not by_file:
        return None
    chosen = list(by_file.items())[:MAX_PANELS]
    panels, drawn = [], 0
    for file, rows in chosen:
        urgent = sorted(rows, key=lambda row: _PLACES[row.verdict])[:MAX_LINES]
        drawn += len(urgent)
        panels.append(_panel(comparison, file=file, rows=urgent))
    total = sum(map(len, by_file.values()))
    note = "" if drawn == total else f"{drawn} of {total} ratios are drawn; the table has more."
    return Plots(panels=tuple(panels), note=note)


def _panel(comparison: Comparison, *, file: str, rows: Sequence[Compared]) -> Plot:
    metric = comparison.metric.name
    values = [(row.ratio or 1.0, row.low, row.high) for row in rows]
    has_devices = len({row.b.device for row in rows}) > 1
    labels = [_label(row, has_devices=has_devices) for row in rows]
    verdicts = list(dict.fromkeys(row.verdict for row in rows))

    def paint(axes: Axes) -> None:
        dots(
            axes,
            values=values,
            labels=labels,
            numbers=[_PLACES[row.verdict] for row in rows],
            is_hollow=[row.mode not in ("real", "") for row in rows],
        )
        for place, row in enumerate(rows):
            if row.verdict:
                edges = [1.0 / (1.0 + row.threshold_frac), 1.0 + row.threshold_frac]
                axes.plot(edges, [place, place], color=INK, alpha=0.15, linewidth=9, zorder=0)
        for verdict in verdicts:
            number = _PLACES[verdict]
            name = verdict or "ratio only"
            axes.plot([], [], marker_of(number), color=color_of(number), label=name)
        axes.axvline(1.0, color=INK, linewidth=1, linestyle="--")
        ends = [end for value in values for end in value if end is not None]
        low, high = min(*ends, 0.9), max(*ends, 1.1)
        if high < 10.0 * low:
            axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        label_below(axes, f"{metric} over the first file's; under 1 is better")

    told = "; ".join(
        f"{label}: {in_words(value)} {row.verdict or 'ratio only'}"
        for label, value, row in zip(labels, values, rows, strict=True)
    )
    return draw(
        f"compare {file}",
        title=f"{file} over {comparison.labels[0]}",
        description=f"Ratio of {metric} with 95 % interval; the grey bar is the threshold. {told}.",
        plot_inches=ROW_INCHES * len(rows) + 0.1,
        left_inches=label_inches(labels),
        num_legend_lines=-(-len(verdicts) // 2),
        legend_columns=2,
        paint=paint,
    )


def _label(row: Compared, *, has_devices: bool) -> str:
    words = [
        row.workload,
        row.size,
        row.dtype,
        "" if row.batch is None else f"b{row.batch}",
        row.link,
        f"x{row.device_count}" if (row.device_count or 1) > 1 else "",
        "" if row.mode in ("real", "") else f"[{row.mode}]",
        short(row.b.device, length=14) if has_devices else "",
    ]
    return " ".join(word for word in words if word)
