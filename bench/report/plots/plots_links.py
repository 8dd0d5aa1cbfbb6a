"""Slowdown over the bandwidth of the link, and speed over the number of devices.

A panel per workload, a curve per layout and mode; the shape of a mark is the mode, and only real
ones are filled: no curve mixes modes, and each is against its own fastest link. Bars are the
bracket (link's error band, contention), not the scatter of trials, which the tables have. What was
published about the H800 is drawn in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.analysis.scaling import families, fastest_links, slowdown
from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.identity import LAYOUT
from bench.analysis.trials.titles import mitigations_of
from bench.core.nouns import MODES
from bench.core.units import format_number
from bench.report.page.content import Plot, Plots
from bench.report.plots.kinds import (
    Axis,
    DrawnCurve,
    ShadedBand,
    is_drawable,
    line,
    tick,
)
from bench.report.plots.link_rates import bytes_per_s_of
from bench.report.plots.panel import Value, short
from bench.report.tables.cells import change_span, text_of
from bench.report.tables.links_tables import swept_among, workload_title

MAX_PANELS = 6
MAX_CURVES = 8

# H800 against the fastest chips, on some AI tasks (Cryptopolitan after Reuters, May 2023); reprint:
# https://www.btimesonline.com/articles/158539/20230503/chinas-ai-sector-progresses-despite-us-chip-export-limitations.htm
CLAIM = ShadedBand(
    low=1.10,
    high=1.30,
    label="published for H800: 10-30 % longer",
    source="Cryptopolitan after Reuters, 2023",
)
_CLAIM_NOTE = (
    "Grey: the published 10-30 % longer of the H800 against the fastest chips "
    f"({CLAIM.source}), whatever links are drawn."
)
_BAR_NOTE = "Bars: bracket, from fast link without contention to slow link with full contention."
_MOST_NAMES = 8

Drawn = tuple[Trials, float, Value]
"""A run with its place on the axis and its figure."""


def swept(shown: Sequence[Trials]) -> list[Trials]:
    """Runs over several devices or a modelled link, and one device on the same terms.

    One device may be there in another mode; nothing is divided by it then.
    """
    terms = {run.terms(but=LAYOUT) for run in shown if run.is_wide}
    return [run for run in shown if run.terms(but=LAYOUT) in terms]


def _kind_of(run: Trials, *, with_link: bool) -> str:
    """How a curve is called: over devices (`with_link`) or over links, and what it shares."""
    row = run.first
    layout = str(row.get("layout") or "")
    parts = [
        "" if with_link else f"x{run.num_devices}",
        str(row.get("parallel") or ""),
        run.link if with_link else layout if " x " in layout else "",
        mitigations_of(row),
        str(row.get("device_name") or row["device"]),
        run.file,
        "" if run.mode == "real" else f"[{run.mode}]",
    ]
    return " ".join(part for part in parts if part)


def curve_name(name: str, *, taken: Iterable[str]) -> str:
    """The name, numbered where another curve of the panel has it already."""
    found = [other for other in taken if other == name or other.startswith(f"{name} (")]
    return f"{name} ({len(found) + 1})" if found else name


def _shape_of(mode: str) -> int:
    """Number whose shape stands for a mode in every panel."""
    return MODES.index(mode) if mode in MODES else 0


def slowdown_plots(runs: Sequence[Trials]) -> Plots | None:
    """Slowdown over bandwidth; None where no layout was run over two links of known bandwidth."""
    fastest = fastest_links(runs)
    leaders = {id(run) for run in fastest.values()}
    params = swept_among(runs)
    panels: dict[str, dict[str, list[Drawn]]] = {}
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
        ends = (None if found is None else found.ends) or (None, None)
        value = (1.0 if found is None else found.ratio.value, *ends)
        if is_drawable(rate / 1e9, *value):
            curves = panels.setdefault(workload_title(run, params), {})
            key = run.terms(but=("link",))
            if key not in names:
                names[key] = curve_name(_kind_of(run, with_link=False), taken=curves)
            curves.setdefault(names[key], []).append((run, rate / 1e9, value))
    drawn = {title: curves for title, curves in panels.items() if _num_places(curves) > 1}
    if not drawn:
        return None
    plots = [_slowdown(title, curves) for title, curves in list(drawn.items())[:MAX_PANELS]]
    return Plots(panels=tuple(plots), note=_slowdown_note(len(drawn), unplaced=list(unplaced)))


def _num_places(curves: dict[str, list[Drawn]]) -> int:
    return len({place for points in curves.values() for _, place, _ in points})


def _slowdown_note(num_panels: int, *, unplaced: Sequence[str]) -> str:
    words = ["Each curve is against its own fastest link.", _BAR_NOTE, _CLAIM_NOTE]
    if unplaced:
        names = ", ".join(short(name, length=24) for name in unplaced[:2])
        more = f" and {len(unplaced) - 2} more" if len(unplaced) > 2 else ""
        words.append(f"Not drawn, for want of a finite bandwidth known here: {names}{more}.")
    words.append(_panels_left(num_panels))
    return " ".join(word for word in words if word)


def _panels_left(num_panels: int) -> str:
    return f"{MAX_PANELS} of {num_panels} panels are drawn." if num_panels > MAX_PANELS else ""


def _slowdown(title: str, curves: dict[str, list[Drawn]]) -> Plot:
    chosen = []
    for number, (kind, points) in enumerate(list(curves.items())[:MAX_CURVES]):
        points.sort(key=lambda point: point[1])
        # A little apart, so that bars of several curves at one link can be separated from each
        # other.
        apart = 1.025 ** (number % 4 - 1)
        words = ", ".join(_slower(*point) for point in reversed(points))
        chosen.append(_curve(kind, points, words=f"{kind}: {words}", apart=apart))
    high = max(end for curve in chosen for _, value in curve.points for end in value if end)
    is_far = high > 4.0
    y = Axis(
        label="against the fastest link",
        scale="log" if is_far else "near",
        form=(lambda value: f"x{tick(value)}")
        if is_far
        else (lambda value: f"{(value - 1.0) * 100.0:+.0f} %"),
        low=0.98,
        # Room above for the names of the links.
        high=high**1.5 if is_far else 1.5 * max(high, CLAIM.high) - 0.5,
    )
    return line(
        f"slowdown {title}",
        title=title,
        what="Time against the fastest link over bandwidth",
        curves=chosen,
        x=Axis(label="GB/s of one device in one direction, specified", scale="log"),
        y=y,
        plot_inches=2.6,
        band=CLAIM,
        names=_link_names([point for points in curves.values() for point in points]),
    )


def _slower(run: Trials, gb_per_s: float, value: Value) -> str:
    ratio, low, high = value
    reported = f"{run.link} at {format_number(gb_per_s)} GB/s {(ratio - 1) * 100:+.1f} %"
    if low is None or high is None:
        return reported
    return f"{reported} ({text_of(change_span((low, high), beside=ratio))})"


def _curve(
    kind: str,
    points: Sequence[Drawn],
    *,
    words: str,
    apart: float = 1.0,
    level: float | None = None,
) -> DrawnCurve:
    mode = points[-1][0].mode
    return DrawnCurve(
        label=kind,
        points=[(place * apart, value) for _, place, value in points],
        words=words,
        shape=_shape_of(mode),
        is_hollow=mode != "real",
        level=level,
    )


def _link_names(points: Sequence[Drawn]) -> list[tuple[float, str]]:
    """Places of links with their names, the fastest first."""
    names: dict[float, dict[str, None]] = {}
    for run, place, _ in sorted(points, key=lambda point: -point[1]):
        names.setdefault(place, {})[run.link] = None
    named = []
    for place, links in list(names.items())[:_MOST_NAMES]:
        first, *others = links
        more = f" +{len(others)}" if others else ""
        named.append((place, short(first, length=16) + more))
    return named


def scaling_plots(runs: Sequence[Trials]) -> Plots | None:
    """Items per second and device over the number of devices, a panel per workload."""
    params = swept_among(runs)
    panels: dict[str, dict[str, list[Drawn]]] = {}
    for family in families(runs):
        points = [
            (run, float(run.num_devices), value)
            for run in family
            if (value := _speed_of(run)) is not None
        ]
        if len({place for _, place, _ in points}) > 1:
            curves = panels.setdefault(workload_title(family[-1], params), {})
            curves[curve_name(_kind_of(family[-1], with_link=True), taken=curves)] = points
    if not panels:
        return None
    drawn = [_scaling(title, found) for title, found in list(panels.items())[:MAX_PANELS]]
    note = (
        "Level is perfect scaling; dotted: one device in the same mode. Bars: speed at both ends "
        "of the step's bracket."
    )
    return Plots(panels=tuple(drawn), note=f"{note} {_panels_left(len(panels))}".rstrip())


def _speed_of(run: Trials) -> Value | None:
    """Items per second and device, with its ends by the bracket of the step."""
    speed = run.estimate("throughput_per_s", scale=1.0 / run.num_devices)
    if speed is None or not is_drawable(speed.value):
        return None
    if run.step_ends_s is None or run.step_s is None:
        return speed.value, None, None
    fast_s, slow_s = run.step_ends_s
    ends = (speed.value * run.step_s.value / slow_s, speed.value * run.step_s.value / fast_s)
    return (speed.value, *ends) if is_drawable(*ends) else (speed.value, None, None)


def _scaling(title: str, curves: dict[str, list[Drawn]]) -> Plot:
    chosen = []
    for kind, points in list(curves.items())[:MAX_CURVES]:
        words = ", ".join(f"{place:.0f} devices {format_number(v[0])}" for _, place, v in points)
        level = points[0][2][0] if points[0][1] == 1.0 else None
        chosen.append(_curve(kind, points, words=f"{kind}: {words}", level=level))
    first = next(iter(curves.values()))[-1][0].first
    return line(
        f"scaling {title}",
        title=title,
        what="Items per second and device over number of devices",
        curves=chosen,
        x=Axis(label="devices", scale="counts", form=lambda value: f"{value:.0f}"),
        y=Axis(label=f"{first.get('items_unit') or 'item'}/s of one device", scale="zero"),
    )
