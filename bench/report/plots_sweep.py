"""Panels of what changes with the number of devices and with the link between them.

Real, throttled, emulated and simulated rows are never joined by a line: each curve is one mode,
its legend says which, and only real ones have filled marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import TYPE_CHECKING

from bench.core.units import format_number
from bench.report.content import Plot, Plots
from bench.report.evidence import Shown
from bench.report.marks import dots, is_drawable, label_below, look, span_axis, tick
from bench.report.panel import (
    INK,
    ROW_INCHES,
    Value,
    color_of,
    draw,
    label_inches,
    marker_of,
    short,
)
from bench.report.plots_speed import in_words, left_out, mean_of
from bench.report.sweep_rows import count_of, is_wide, kind_of, single_devices, terms_of, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 6
MAX_CURVES = 8
MAX_LINES = 14


def scaling_plots(shown: Sequence[Shown]) -> Plots | None:
    """Items per second over the number of devices, a panel per workload."""
    alone = single_devices(shown)
    curves: dict[str, dict[str, list[Shown]]] = {}
    for one in filter(is_wide, shown):
        if _speed_of(one) is not None:
            curve = curves.setdefault(str(one.line.first["workload"]), {})
            first = alone.get(terms_of(one), one)
            curve.setdefault(kind_of(one), [] if first is one else [first]).append(one)
    panels = [
        _scaling(workload, kinds)
        for workload, kinds in curves.items()
        if len({count_of(one) for points in kinds.values() for one in points}) > 1
    ]
    if not panels:
        return None
    note = "Dotted: as many times one device's speed as there are devices."
    if len(panels) > MAX_PANELS:
        note += f" {MAX_PANELS} of {len(panels)} workloads are drawn."
    return Plots(panels=tuple(panels[:MAX_PANELS]), note=note)


def _scaling(workload: str, kinds: dict[str, list[Shown]]) -> Plot:
    chosen = list(kinds.items())[:MAX_CURVES]
    points = {
        kind: sorted(
            (count_of(one), value[0]) for one in found if (value := _speed_of(one)) is not None
        )
        for kind, found in chosen
    }

    def paint(axes: Axes) -> None:
        for number, (kind, found) in enumerate(chosen):
            counts, speeds = zip(*points[kind], strict=True)
            _curve(axes, counts, speeds, kind=kind, number=number, is_real=found[0].mode == "real")
            if counts[0] == 1:
                ideal = [2.0 ** (power / 4) for power in range(int(4 * log2(counts[-1])) + 1)]
                line = [speeds[0] * count for count in ideal]
                axes.plot(ideal, line, color=INK, linewidth=0.8, linestyle=":")
        every = [point for found in points.values() for point in found]
        span_axis(axes, values=[speed for _, speed in every], which="y")
        ticks = sorted({count for count, _ in every})
        axes.set_xscale("log", base=2)
        axes.set_xlim(ticks[0] / 1.2, ticks[-1] * 1.2)
        axes.set_xticks(ticks[:: -(-len(ticks) // 8)])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        axes.minorticks_off()
        label_below(axes, "devices")
        axes.set_ylabel(f"{unit_of(chosen[0][1][0])}/s")
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))

    told = "; ".join(
        f"{kind}: " + ", ".join(f"{count} devices {format_number(speed)}" for count, speed in found)
        for kind, found in points.items()
    )
    return draw(
        f"scaling {workload}",
        title=workload,
        description=f"Items per second over number of devices. {told}.",
        plot_inches=2.0,
        num_legend_lines=len(chosen),
        paint=paint,
    )


def _speed_of(one: Shown) -> Value | None:
    value = mean_of(one, "throughput_per_s")
    return value if value is not None and is_drawable(*value) else None


def _curve(
    axes: Axes,
    counts: Sequence[float],
    speeds: Sequence[float],
    *,
    kind: str,
    number: int,
    is_real: bool,
) -> None:
    axes.plot(
        counts,
        speeds,
        marker=marker_of(number),
        linestyle="-" if is_real else "--",
        label=short(kind, length=60),
        **look(color_of(number), is_hollow=not is_real),  # type: ignore[arg-type]
    )


def link_plots(shown: Sequence[Shown]) -> Plots | None:
    """Items per second by link, at each number of devices, a panel per workload."""
    by_panel: dict[tuple[str, int], list[Shown]] = {}
    for one in shown:
        row = one.line.first
        if row.get("link") and _speed_of(one) is not None:
            by_panel.setdefault((str(row["workload"]), count_of(one)), []).append(one)
    if not by_panel:
        return None
    chosen = list(by_panel.items())[:MAX_PANELS]
    panels = [_links(workload, count, found[:MAX_LINES]) for (workload, count), found in chosen]
    drawn = sum(len(found[:MAX_LINES]) for _, found in chosen)
    return Plots(panels=tuple(panels), note=left_out(drawn, of=sum(map(len, by_panel.values()))))


def _links(workload: str, count: int, found: Sequence[Shown]) -> Plot:
    links = list(dict.fromkeys(str(one.line.first["link"]) for one in found))
    values = [value for one in found if (value := _speed_of(one)) is not None]
    labels = [
        " ".join(
            part
            for part in (
                str(one.line.first["link"]),
                str(one.line.first.get("parallel") or ""),
                "" if one.mode == "real" else f"[{one.mode}]",
                one.file,
            )
            if part
        )
        for one in found
    ]

    def paint(axes: Axes) -> None:
        dots(
            axes,
            values=values,
            labels=labels,
            numbers=[links.index(str(one.line.first["link"])) for one in found],
            is_hollow=[one.mode != "real" for one in found],
        )
        label_below(axes, f"{unit_of(found[0])}/s; more is faster")

    told = "; ".join(f"{a}: {in_words(v)}" for a, v in zip(labels, values, strict=True))
    return draw(
        f"links {workload} {count}",
        title=f"{workload} on {count} devices",
        description=f"Items per second by link. {told}.",
        plot_inches=ROW_INCHES * len(found) + 0.1,
        left_inches=label_inches(labels),
        paint=paint,
    )
