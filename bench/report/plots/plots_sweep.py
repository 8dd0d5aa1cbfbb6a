"""Panels of speed of one device among many, and of the step over each link by name.

Real, throttled, emulated and simulated rows are never joined by a line: each curve is one mode, its
marks have the mode's shape, and only real ones are filled. Bars are brackets where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.analysis.links import LinkRun
from bench.analysis.scaling import families
from bench.core.units import format_number
from bench.report.page.content import Plot, Plots
from bench.report.plots.marks import dots, is_drawable, label_below, look, tick
from bench.report.plots.panel import (
    INK,
    ROW_INCHES,
    Value,
    color_of,
    draw,
    label_inches,
    marker_of,
    short,
)
from bench.report.plots.plots_links import LINES, MAX_CURVES, MAX_PANELS, curve_name, mode_number
from bench.report.plots.plots_speed import in_words, left_out
from bench.report.plots.sweep_rows import kind_of, unit_of
from bench.report.tables.links_tables import swept_among, workload_title
from bench.report.tables.run_table import remedies_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LINES = 14
_Curve = tuple[str, list[tuple[int, Value]]]
"""Mode, and items per second and device by number of devices."""


def scaling_plots(runs: Sequence[LinkRun]) -> Plots | None:
    """Items per second and device over the number of devices, a panel per workload."""
    params = swept_among(runs)
    panels: dict[str, dict[str, _Curve]] = {}
    units: dict[str, str] = {}
    for family in families(runs):
        points = [
            (run.num_devices, value) for run in family if (value := _speed_of(run)) is not None
        ]
        if len({count for count, _ in points}) > 1:
            last, title = family[-1], workload_title(family[-1], params)
            units.setdefault(title, unit_of(last))
            curves = panels.setdefault(title, {})
            curves[curve_name(kind_of(last, with_link=True), taken=curves)] = (last.mode, points)
    if not panels:
        return None
    drawn = [_scaling(title, found, unit=units[title]) for title, found in panels.items()]
    note = (
        "Level is perfect scaling; dotted: one device in the same mode. Bars: speed at both ends "
        "of the step's bracket."
    )
    if len(drawn) > MAX_PANELS:
        note += f" {MAX_PANELS} of {len(drawn)} panels are drawn."
    return Plots(panels=tuple(drawn[:MAX_PANELS]), note=note)


def _speed_of(run: LinkRun) -> Value | None:
    """Items per second and device, with its ends by the bracket of the step."""
    speed = run.estimate("throughput_per_s", scale=1.0 / run.num_devices)
    if speed is None or not is_drawable(speed.value):
        return None
    if run.bracket_s is None or run.step_s is None:
        return speed.value, None, None
    fast_s, slow_s = run.bracket_s
    ends = (speed.value * run.step_s.value / slow_s, speed.value * run.step_s.value / fast_s)
    return (speed.value, *ends) if is_drawable(*ends) else (speed.value, None, None)


def _scaling(title: str, kinds: dict[str, _Curve], *, unit: str) -> Plot:
    chosen = list(kinds.items())[:MAX_CURVES]

    def paint(axes: Axes) -> None:
        for number, (kind, (mode, points)) in enumerate(chosen):
            _scaling_curve(axes, points, kind=kind, mode=mode, number=number)
        every = [point for _, (_, points) in chosen for point in points]
        ends = [end for _, value in every for end in value if end is not None]
        axes.set_ylim(0.0, max(ends) * 1.08)
        axes.locator_params(axis="y", nbins=6)
        _count_axis(axes, counts=sorted({count for count, _ in every}))
        axes.set_ylabel(short(f"{unit}/s of one device", length=30))
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))

    told = "; ".join(
        f"{kind}: "
        + ", ".join(f"{count} devices {format_number(value[0])}" for count, value in points)
        for kind, (_, points) in chosen
    )
    return draw(
        f"scaling {title}",
        title=title,
        description=f"Items per second and device over number of devices. {told}.",
        plot_inches=2.2,
        num_legend_lines=len(chosen),
        paint=paint,
    )


def _scaling_curve(
    axes: Axes, points: Sequence[tuple[int, Value]], *, kind: str, mode: str, number: int
) -> None:
    color = color_of(number)
    for count, (_, low, high) in points:
        if low is not None and high is not None:
            axes.vlines(count, low, high, color=color, linewidth=1.4)
            axes.plot([count] * 2, [low, high], "_", color=color, markersize=7)
    axes.plot(
        [count for count, _ in points],
        [value[0] for _, value in points],
        marker=marker_of(mode_number(mode)),
        linestyle=LINES[number % len(LINES)],
        linewidth=1.2,
        label=short(kind, length=60),
        **look(color, is_hollow=mode != "real"),  # type: ignore[arg-type]
    )
    first, last = points[0], points[-1]
    if first[0] == 1:
        axes.plot([1, last[0]], [first[1][0]] * 2, color=INK, linewidth=0.8, linestyle=":")


def _count_axis(axes: Axes, *, counts: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(counts[0] / 1.2, counts[-1] * 1.2)
    axes.set_xticks(counts[:: -(-len(counts) // 8)])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.minorticks_off()
    label_below(axes, "devices")


def link_plots(runs: Sequence[LinkRun]) -> Plots | None:
    """Step by link, at each number of devices, a panel per workload."""
    params = swept_among(runs)
    by_panel: dict[tuple[str, int], list[tuple[LinkRun, Value]]] = {}
    for run in runs:
        value = _step_ms_of(run) if run.link else None
        if value is not None:
            key = (workload_title(run, params), run.num_devices)
            by_panel.setdefault(key, []).append((run, value))
    if not by_panel:
        return None
    chosen = list(by_panel.items())[:MAX_PANELS]
    panels = [_links(title, count, found[:MAX_LINES]) for (title, count), found in chosen]
    drawn = sum(len(found[:MAX_LINES]) for _, found in chosen)
    note = "Bars: the step's bracket, or where there is none its 95 % interval over trials."
    hidden = left_out(drawn, of=sum(map(len, by_panel.values())))
    return Plots(panels=tuple(panels), note=" ".join(text for text in (note, hidden) if text))


def _step_ms_of(run: LinkRun) -> Value | None:
    if run.step_s is None:
        return None
    middle, ends = run.step_s.value * 1e3, run.bracket_s or run.step_s.interval
    value = (middle, None, None) if ends is None else (middle, ends[0] * 1e3, ends[1] * 1e3)
    return value if is_drawable(*value) else None


def _links(title: str, count: int, found: Sequence[tuple[LinkRun, Value]]) -> Plot:
    runs, values = [run for run, _ in found], [value for _, value in found]
    tails = [_tail(run) for run in runs]
    has_tails = len(set(tails)) > 1
    labels = [
        _label(run, tail=tail if has_tails else "") for run, tail in zip(runs, tails, strict=True)
    ]

    def paint(axes: Axes) -> None:
        dots(
            axes,
            values=values,
            labels=labels,
            numbers=[mode_number(run.mode) for run in runs],
            is_hollow=[run.mode != "real" for run in runs],
        )
        label_below(axes, "ms a step; less is faster")

    told = "; ".join(f"{a}: {in_words(v)}" for a, v in zip(labels, values, strict=True))
    return draw(
        f"links {title} {count}",
        title=f"{title} on {count} devices" if count > 1 else title,
        description=f"Milliseconds a step by link. {told}.",
        plot_inches=ROW_INCHES * len(found) + 0.1,
        left_inches=label_inches(labels),
        paint=paint,
    )


def _tail(run: LinkRun) -> str:
    layout = str(run.first.get("layout") or "")
    parts = (layout if " x " in layout else "", remedies_of(run.first))
    return " ".join(part for part in parts if part)


def _label(run: LinkRun, *, tail: str) -> str:
    parallel = str(run.first.get("parallel") or "")
    # What tells lines apart must survive when a label is cut.
    link = short(run.link, length=16) if tail else run.link
    badge = "" if run.mode == "real" else f"[{run.mode}]"
    return " ".join(part for part in (link, parallel, tail, badge, run.file) if part)
