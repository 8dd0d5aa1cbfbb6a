"""Slowdown over the bandwidth of the link, with what was published about the H800 drawn in.

A panel per workload, a curve per layout and mode; the shape of a mark is the mode. Bars are the
bracket (link's error band, contention), not the scatter of trials, which the tables have. Each
curve is against its own fastest link, so no curve mixes modes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.analysis.links import REMEDIES, Bracket, LinkRun, fastest_links, slowdown
from bench.core.nouns import MODES
from bench.core.units import format_number
from bench.report.page.content import Plot, Plots
from bench.report.plots.link_rates import bytes_per_s_of
from bench.report.plots.marks import is_drawable, label_below, log_axis, look, tick
from bench.report.plots.panel import FAINT, INK, color_of, draw, marker_of, short
from bench.report.plots.sweep_rows import kind_of
from bench.report.tables.cells import change_span, text_of
from bench.report.tables.links_tables import swept_among, workload_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 6
MAX_CURVES = 8
LINES = ("-", "--", "-.", ":")
"""Curves differ in line and colour, since the shape of a mark is the mode."""

# H800 against the fastest chips, on some AI tasks (Cryptopolitan after Reuters, May 2023); reprint:
# https://www.btimesonline.com/articles/158539/20230503/chinas-ai-sector-progresses-despite-us-chip-export-limitations.htm
CLAIM = (1.10, 1.30)
CLAIM_NAME = "published for H800: 10-30 % longer"
_CLAIM_NOTE = (
    "Grey: the published 10-30 % longer of the H800 against the fastest chips (Cryptopolitan after "
    "Reuters, 2023), whatever links are drawn."
)
_BAR_NOTE = "Bars: bracket, from fast link without contention to slow link with full contention."
_MOST_NAMES = 8
_LEAST_GAP = 0.045
"""Nearer names, as a share of the axis, would lie on each other."""


@dataclass(frozen=True, kw_only=True)
class _Point:
    link: str
    gb_per_s: float
    ratio: float
    bracket: Bracket | None


Curves = dict[str, tuple[str, list[_Point]]]
"""Mode and points by the name of the curve."""


def curve_name(name: str, *, taken: Iterable[str]) -> str:
    """The name, numbered where another curve of the panel has it already."""
    found = [other for other in taken if other == name or other.startswith(f"{name} (")]
    return f"{name} ({len(found) + 1})" if found else name


def mode_number(mode: str) -> int:
    """Number whose shape stands for a mode in every panel."""
    return MODES.index(mode) if mode in MODES else 0


def slowdown_plots(runs: Sequence[LinkRun]) -> Plots | None:
    """Slowdown over bandwidth; None where no layout was run over two links of known bandwidth."""
    fastest = fastest_links(runs)
    leaders = {id(run) for run in fastest.values()}
    params = swept_among(runs)
    panels: dict[str, Curves] = {}
    names: dict[tuple[str, ...], str] = {}
    unplaced: dict[str, None] = {}
    for run in runs:
        found = slowdown(run, fastest=fastest)
        if found is None and id(run) not in leaders:
            continue
        rate = bytes_per_s_of(run.link)
        if rate is None:
            unplaced[run.link] = None
            continue
        ratio = 1.0 if found is None else found.ratio.value
        bracket = None if found is None else found.bracket
        point = _Point(link=run.link, gb_per_s=rate / 1e9, ratio=ratio, bracket=bracket)
        if is_drawable(point.gb_per_s, ratio, *(bracket or ())):
            curves = panels.setdefault(workload_title(run, params), {})
            key = (*run.spread, *run.facts(REMEDIES))
            if key not in names:
                names[key] = curve_name(kind_of(run, with_link=False), taken=curves)
            curves.setdefault(names[key], (run.mode, []))[1].append(point)
    drawn = {title: curves for title, curves in panels.items() if _num_rates(curves) > 1}
    if not drawn:
        return None
    plots = [_panel(title, curves) for title, curves in list(drawn.items())[:MAX_PANELS]]
    return Plots(panels=tuple(plots), note=_note(len(drawn), unplaced=list(unplaced)))


def _num_rates(curves: Curves) -> int:
    return len({point.gb_per_s for _, points in curves.values() for point in points})


def _note(num_panels: int, *, unplaced: Sequence[str]) -> str:
    words = ["Each curve is against its own fastest link.", _BAR_NOTE, _CLAIM_NOTE]
    if unplaced:
        names = ", ".join(short(name, length=24) for name in unplaced[:2])
        more = f" and {len(unplaced) - 2} more" if len(unplaced) > 2 else ""
        words.append(f"Not drawn, for want of a finite bandwidth known here: {names}{more}.")
    if num_panels > MAX_PANELS:
        words.append(f"{MAX_PANELS} of {num_panels} panels are drawn.")
    return " ".join(words)


def _panel(title: str, curves: Curves) -> Plot:
    chosen = dict(list(curves.items())[:MAX_CURVES])
    for _, points in chosen.values():
        points.sort(key=lambda point: point.gb_per_s)
    every = [point for _, points in chosen.values() for point in points]
    ends = [end for point in every for end in (point.ratio, *(point.bracket or ()))]

    def paint(axes: Axes) -> None:
        axes.axhspan(*CLAIM, color=FAINT, alpha=0.55, linewidth=0, label=CLAIM_NAME)
        axes.axhline(1.0, color=INK, linewidth=0.8)
        for number, (kind, (mode, points)) in enumerate(chosen.items()):
            _curve(axes, points, kind=kind, mode=mode, number=number)
        log_axis(axes, values=[point.gb_per_s for point in every], which="x")
        top = _ratio_axis(axes, ends=ends)
        _name_links(axes, every, top=top)
        label_below(axes, "GB/s of one device in one direction, specified")
        axes.set_ylabel("against the fastest link")

    return draw(
        f"slowdown {title}",
        title=title,
        description=_words(chosen),
        plot_inches=2.6,
        num_legend_lines=len(chosen) + 1,
        paint=paint,
    )


def _words(chosen: Curves) -> str:
    told = []
    for kind, (_, points) in chosen.items():
        each = [
            f"{point.link} at {format_number(point.gb_per_s)} GB/s {(point.ratio - 1) * 100:+.1f} %"
            + (
                ""
                if point.bracket is None
                else f" ({text_of(change_span(point.bracket, beside=point.ratio))})"
            )
            for point in reversed(points)
        ]
        told.append(f"{kind}: {', '.join(each)}")
    band = f"Band: {CLAIM_NAME} (Cryptopolitan after Reuters, 2023)."
    return f"Time against the fastest link over bandwidth. {'; '.join(told)}. {band}"


def _curve(axes: Axes, points: Sequence[_Point], *, kind: str, mode: str, number: int) -> None:
    # A little apart, so that bars of several curves at one link can be told from each other.
    places = [point.gb_per_s * 1.025 ** (number % 4 - 1) for point in points]
    for place, point in zip(places, points, strict=True):
        if point.bracket is not None:
            axes.vlines(place, *point.bracket, color=color_of(number), linewidth=1.4)
            axes.plot([place] * 2, point.bracket, "_", color=color_of(number), markersize=7)
    axes.plot(
        places,
        [point.ratio for point in points],
        marker=marker_of(mode_number(mode)),
        linestyle=LINES[number % len(LINES)],
        linewidth=1.2,
        label=short(kind, length=60),
        **look(color_of(number), is_hollow=mode != "real"),  # type: ignore[arg-type]
    )


def _ratio_axis(axes: Axes, *, ends: Sequence[float]) -> float:
    """Axis of ratios around 1 and the band, with room for names above; the end of the data."""
    low, high = min(0.98, *ends), max(CLAIM[1], *ends)
    if high > 4.0:
        log_axis(axes, values=[low, high], which="y")
        axes.set_ylim(low / 1.1, high * (high / low) ** 0.55)
        axes.yaxis.set_major_formatter(lambda value, _: f"x{tick(value)}")
    else:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.5 * (high - low))
        axes.locator_params(axis="y", nbins=6)
        axes.yaxis.set_major_formatter(lambda value, _: f"{(value - 1.0) * 100.0:+.0f} %")
    return high


def _name_links(axes: Axes, points: Sequence[_Point], *, top: float) -> None:
    """Names of the links upright over their places, above everything that is drawn."""
    names: dict[float, list[str]] = {}
    for point in sorted(points, key=lambda point: -point.gb_per_s):
        found = names.setdefault(point.gb_per_s, [])
        if point.link not in found:
            found.append(point.link)
    transform, last = axes.transLimits, None
    for rate, links in list(names.items())[:_MOST_NAMES]:
        place = float(transform.transform(axes.transScale.transform((rate, top)))[0])
        if last is not None and last - place < _LEAST_GAP:
            continue
        last = place
        more = f" +{len(links) - 1}" if len(links) > 1 else ""
        axes.text(
            place,
            0.98,
            short(links[0], length=16) + more,
            transform=axes.transAxes,
            rotation=90,
            ha="center",
            va="top",
            fontsize=7.5,
        )
