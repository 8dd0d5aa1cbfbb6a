"""What is put on the axes of a panel: dots with intervals, scales that fit, short ticks.

Figures that no axis can hold are told apart by `is_drawable` before anything is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.report.plots.panel import GROUND, INK, Value, color_of, marker_of, short
from bench.report.plots.scales import name_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def is_drawable(*figures: float | None) -> bool:
    """Whether figures can be placed on an axis, whatever nonsense a file may hold."""
    return all(figure is None or 1e-30 < figure < 1e30 for figure in figures)


def dots(
    axes: Axes,
    *,
    values: Sequence[Value],
    labels: Sequence[str],
    numbers: Sequence[int],
    is_hollow: Sequence[bool],
) -> None:
    """Dots with intervals, one line each from the top down; `numbers` choose colour and shape."""
    for kind in dict.fromkeys(zip(numbers, is_hollow, strict=True)):
        places = [i for i, one in enumerate(zip(numbers, is_hollow, strict=True)) if one == kind]
        spans = [(low, high) for _, low, high in (values[i] for i in places)]
        known = [(i, *span) for i, span in zip(places, spans, strict=True) if None not in span]
        color = color_of(kind[0])
        if known:
            axes.hlines(*zip(*known, strict=True), color=color, linewidth=2)
        shape = look(color, is_hollow=kind[1])
        middles = [values[i][0] for i in places]
        axes.plot(middles, places, marker_of(kind[0]), **shape)  # type: ignore[arg-type]
    name_lines(axes, [short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    _fit(axes, ends=[end for value in values for end in value if end is not None])


def look(color: str, *, is_hollow: bool) -> dict[str, object]:
    """Filled with a thin edge, or hollow: what was not measured on the hardware as named."""
    return {
        "color": color,
        "markeredgecolor": color if is_hollow else INK,
        "markerfacecolor": GROUND if is_hollow else color,
        "markeredgewidth": 1.6 if is_hollow else 0.6,
    }


def label_below(axes: Axes, text: str) -> None:
    """Label of the horizontal axis, flush with its right end so that it may reach far left."""
    axes.set_xlabel(short(text, length=58), loc="right")


def _fit(axes: Axes, *, ends: Sequence[float]) -> None:
    """From zero where all values are near to each other, logarithmic over more than a decade."""
    positive = [end for end in ends if end > 0.0]
    if positive and max(positive) > 10.0 * min(positive):
        log_axis(axes, values=positive, which="x")
        return
    axes.set_xlim(0.0, (max(positive) if positive else 1.0) * 1.08)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: tick(value))


def log_axis(axes: Axes, *, values: Sequence[float], which: str) -> None:
    """Logarithmic axis around positive values with few, plain ticks."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    low, high = min(values) / 1.4, max(values) * 1.4
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    decades = high / low
    steps: tuple[float, ...] = (1.0,)
    if decades < 8.0:
        steps = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    elif decades < 300.0:
        steps = (1.0, 2.0, 5.0) if decades < 30.0 else (1.0, 3.0)
    axis.set_major_locator(LogLocator(base=10.0, subs=steps, numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: tick(value))
    axis.set_minor_formatter(NullFormatter())


def span_axis(axes: Axes, *, values: Sequence[float], which: str) -> None:
    """Logarithmic where values lie far apart, else linear around them, not from zero."""
    low, high = min(values), max(values)
    if high > 6.0 * low:
        log_axis(axes, values=values, which=which)
        return
    margin = 0.06 * (high - low) or 0.05 * high
    (axes.set_xlim if which == "x" else axes.set_ylim)(low - margin, high + margin)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.locator_params(axis="x" if which == "x" else "y", nbins=5)
    axis.set_major_formatter(lambda value, _: f"{value:.6g}")


def tick(value: float) -> str:
    """Number at a tick: '0', '0.02', '5', '20 k', '3 M'."""
    if value == 0.0:
        return "0"
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9999:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"
