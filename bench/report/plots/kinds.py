"""The kinds of panel: intervals by name; lines and points over an axis, also under guide lines.

Whoever has figures says what they are; where they stand, their ticks, marks, legend and the words
of the text alternative follow here. Hollow marks were not measured on the hardware as named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from bench.core.units import format_number, si_scale
from bench.report.page.content import Plot, Plots
from bench.report.plots import panel
from bench.report.plots.panel import Value, short
from bench.report.tables.cells import ends_of, quantity, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Item = TypeVar("Item")
Form = Callable[[float], str]
LINE_STYLES = ("-", "--", "-.", ":")
_LEGEND_LENGTH = 62
_LEAST_GAP = 0.045
"""Nearer names, as a share of the axis, would lie on each other."""
_LEAST_SPAN = {"fit": 10.0, "near": 6.0, "log": 0.0, "counts": 0.0}
"""Values further apart than this are placed on a logarithmic axis."""


def is_drawable(*figures: float | None) -> bool:
    """Whether figures can be placed on an axis, whatever nonsense a file may hold."""
    return all(figure is None or 1e-30 < figure < 1e30 for figure in figures)


def tick(value: float) -> str:
    """Number at a tick: '0', '0.02', '5', '1,000', '20 k', '3 M'."""
    factor, unit = si_scale(value, "")
    return f"{format_number(value / factor)} {unit}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis shows and how: `fit` begins at zero unless values lie decades apart, `near`
    lies around them unless they lie far apart, `log` is logarithmic, `counts` ticks each value,
    `order` holds numbers of steps, negative ones too, `zero` always begins at zero.
    """

    label: str
    scale: Literal["fit", "near", "log", "counts", "order", "zero"] = "fit"
    form: Form = tick
    low: float | None = None
    high: float | None = None
    """Ends to show at least."""

    def lay_out(self, axes: Axes, which: Literal["x", "y"], *, values: Sequence[float]) -> None:
        """Place, scale and label the axis around some values."""
        known = [*values, *(end for end in (self.low, self.high) if end is not None)]
        if self.scale != "order":
            known = [value for value in known if value > 0.0] or [1.0]
        low, high = min(known), max(known)
        is_log = self.scale in _LEAST_SPAN and high > low * _LEAST_SPAN[self.scale]
        if is_log:
            _logarithmic(axes, which, low=low, high=high)
            low, high = low / 1.2, high * 1.2
        elif self.scale in ("fit", "zero"):
            low, high = 0.0, high * 1.08
        else:
            margin = 0.06 * (high - low) or 0.05 * high or 1.0
            low, high = low - margin, high + margin
        axes.set(**{f"{which}lim": (low, high)})
        axis = axes.xaxis if which == "x" else axes.yaxis
        if self.scale == "counts":
            ticks = sorted(set(values))
            axis.set_ticks(ticks[:: -(-len(ticks) // 8)])
        elif not is_log:
            axes.locator_params(axis=which, nbins=5)
        axis.set_major_formatter(lambda value, _: self.form(value))
        if which == "x":
            # Flush with the right end, so that it may reach far left.
            axes.set_xlabel(short(self.label, length=58), loc="right")
        else:
            axes.set_ylabel(short(self.label, length=30))


def _logarithmic(axes: Axes, which: Literal["x", "y"], *, low: float, high: float) -> None:
    """Few, plain ticks."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    span = high / low
    steps: tuple[float, ...] = (1.0,)
    if span < 4.0:
        steps = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    elif span < 150.0:
        steps = (1.0, 2.0, 5.0) if span < 15.0 else (1.0, 3.0)
    axis.set_major_locator(LogLocator(base=10.0, subs=steps, numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True, kw_only=True)
class DrawnMark:
    """A figure with its interval, by name."""

    label: str
    value: Value
    series: int = 0
    """Chooses colour and shape."""
    is_hollow: bool = False
    band: tuple[float, float] | None = None
    """What counts as no difference."""
    remark: str = ""
    """A word that the text alternative adds, such as a verdict."""


def interval(
    name: str,
    *,
    title: str,
    what: str,
    marks: Sequence[DrawnMark],
    axis: Axis,
    reference: float | None = None,
    legend: Sequence[tuple[str, int]] = (),
) -> Plot:
    """Figures with intervals, one line each from the top down; `legend` names series."""
    labels = [mark.label for mark in marks]

    def paint(axes: Axes) -> None:
        for place, mark in enumerate(marks):
            _, low, high = mark.value
            color = panel.color_of(mark.series)
            if mark.band is not None:
                axes.plot(
                    mark.band,
                    [place] * 2,
                    color=panel.INK,
                    alpha=0.15,
                    linewidth=9,
                    zorder=0,
                    solid_capstyle="butt",
                )
            if low is not None and high is not None:
                axes.hlines(place, low, high, color=color, linewidth=2)
            look = _look(color, is_hollow=mark.is_hollow)
            axes.plot([mark.value[0]], [place], panel.marker_of(mark.series), zorder=3, **look)  # type: ignore[arg-type]
        for text, series in legend:
            axes.plot([], [], panel.marker_of(series), color=panel.color_of(series), label=text)
        if reference is not None:
            axes.axvline(reference, color=panel.INK, linewidth=1, linestyle="--")
        ends = [end for mark in marks for end in mark.value if end is not None]
        axis.lay_out(axes, "x", values=[*ends, *([reference] if reference else [])])
        axes.set_yticks(range(len(labels)), [short(label) for label in labels])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(labels) - 0.5, -0.5)

    words = []
    for mark in marks:
        middle, low, high = mark.value
        figure = text_of(quantity(middle, ends=ends_of(low, high)))
        words.append(f"{mark.label}: {figure} {mark.remark}".strip())
    return panel.draw(
        name,
        title=title,
        description=f"{what}. {'; '.join(words)}.",
        plot_inches=panel.ROW_INCHES * len(marks) + 0.1,
        left_inches=panel.label_inches(labels),
        num_legend_lines=-(-len(legend) // 2),
        legend_columns=2,
        paint=paint,
    )


@dataclass(frozen=True, kw_only=True)
class ShadedBand:
    """A grey band between two heights, and what it is."""

    low: float
    high: float
    label: str
    source: str


@dataclass(frozen=True, kw_only=True)
class DrawnCurve:
    """One line: places on the horizontal axis, and a figure at each."""

    label: str
    points: Sequence[tuple[float, Value]]
    words: str = ""
    """What the text alternative says of it."""
    shape: int | None = None
    """Number of the mark at each point; None draws the line alone."""
    is_hollow: bool = False
    level: float | None = None
    """A dotted line at this height, as far as the curve goes."""


def line(
    name: str,
    *,
    title: str,
    what: str,
    curves: Sequence[DrawnCurve],
    x: Axis,
    y: Axis,
    plot_inches: float = 2.2,
    legend_columns: int = 1,
    reference: float | None = None,
    band: ShadedBand | None = None,
    guides: Sequence[tuple[str, Sequence[tuple[float, float]]]] = (),
    names: Sequence[tuple[float, str]] = (),
) -> Plot:
    """Curves that differ in colour and line; `names` stand upright over places of the axis.

    Points lie under `guides`, lines through some corners with their names at the right end.
    """
    corners = [corner for _, points in guides for corner in points]

    def paint(axes: Axes) -> None:
        places = [place for curve in curves for place, _ in curve.points]
        ends = [end for curve in curves for _, value in curve.points for end in value if end]
        x.lay_out(axes, "x", values=[*places, *(place for place, _ in corners)])
        y.lay_out(axes, "y", values=[*ends, *(top for _, top in corners)])
        for name, points in guides:
            axes.plot(*zip(*points, strict=True), color=panel.INK, linewidth=1.4)
            style = {"xytext": (-2, 3), "textcoords": "offset points", "fontsize": 8.0}
            axes.annotate(name, points[-1], ha="right", va="bottom", **style)  # type: ignore[arg-type]
        for number, curve in enumerate(curves):
            draw_curve(axes, curve, number=number)
        if reference is not None:
            axes.axvline(reference, color=panel.INK, linewidth=1, linestyle=":")
        if band is not None:
            label = {"label": band.label}
            axes.axhspan(band.low, band.high, color=panel.FAINT, alpha=0.55, linewidth=0, **label)  # type: ignore[arg-type]
            axes.axhline(1.0, color=panel.INK, linewidth=0.8)
        _name_places(axes, names)

    num_entries = len(curves) + (band is not None)
    reported = "" if band is None else f" Grey: {band.label} ({band.source})."
    has_legend = num_entries > 1 or curves[0].shape is not None
    return panel.draw(
        name,
        title=title,
        description=f"{what}. {'; '.join(curve.words for curve in curves)}.{reported}",
        plot_inches=plot_inches,
        num_legend_lines=-(-num_entries // legend_columns) if has_legend else 0,
        legend_columns=legend_columns,
        paint=paint,
    )


def draw_curve(axes: Axes, curve: DrawnCurve, *, number: int) -> None:
    """Bars of its intervals, its marks and its line; `number` chooses colour and line."""
    color = panel.color_of(number)
    for place, (_, low, high) in curve.points:
        if low is not None and high is not None:
            axes.vlines(place, low, high, color=color, linewidth=1.4)
            axes.plot([place] * 2, [low, high], "_", color=color, markersize=7)
    places = [place for place, _ in curve.points]
    axes.plot(
        places,
        [value[0] for _, value in curve.points],
        marker=None if curve.shape is None else panel.marker_of(curve.shape),
        linestyle=LINE_STYLES[number % len(LINE_STYLES)] if len(places) > 1 else "",
        linewidth=0.9 if curve.shape is None else 1.2,
        label=short(curve.label, length=_LEGEND_LENGTH),
        zorder=2 if len(places) > 1 else 3,
        **_look(color, is_hollow=curve.is_hollow),  # type: ignore[arg-type]
    )
    if curve.level is not None:
        ends = [places[0], places[-1]]
        axes.plot(ends, [curve.level] * 2, color=panel.INK, linewidth=0.8, linestyle=":")


def _look(color: str, *, is_hollow: bool) -> dict[str, object]:
    """Filled with a thin edge, or hollow."""
    return {
        "color": color,
        "markeredgecolor": color if is_hollow else panel.INK,
        "markerfacecolor": panel.GROUND if is_hollow else color,
        "markeredgewidth": 1.6 if is_hollow else 0.6,
    }


def _name_places(axes: Axes, names: Sequence[tuple[float, str]]) -> None:
    """Names from the right to the left, those left out that would lie on another."""
    to_axes = axes.transData + axes.transAxes.inverted()
    style = {"rotation": 90, "ha": "center", "va": "top", "fontsize": 7.5}
    last = 2.0
    for value, name in names:
        place = float(to_axes.transform((value, axes.get_ylim()[1]))[0])
        if last - place >= _LEAST_GAP:
            last = place
            axes.text(place, 0.98, short(name, length=20), transform=axes.transAxes, **style)  # type: ignore[arg-type]


def panels(
    groups: Mapping[str, Sequence[Item]],
    draw_one: Callable[[str, Sequence[Item]], Plot],
    *,
    most: tuple[int, int],
    what: str = "configurations",
) -> Plots | None:
    """A panel a group, at most so many of so many items each; a line says when that is not all."""
    chosen = {name: items[: most[1]] for name, items in list(groups.items())[: most[0]]}
    if not chosen:
        return None
    drawn, total = (sum(map(len, part.values())) for part in (chosen, groups))
    note = "" if drawn == total else f"{drawn} of {total} {what} are drawn; the table has more."
    return Plots(panels=tuple(draw_one(name, items) for name, items in chosen.items()), note=note)
