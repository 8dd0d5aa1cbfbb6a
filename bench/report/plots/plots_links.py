"""Slowdown over the bandwidth of the link, and speed over the number of devices.

A panel per workload, a curve per layout and mode; the shape of a mark is the mode, and only real
ones are filled: no curve mixes modes, and each is against its own fastest link. Bars are the
bracket (link's error band, contention), not the scatter of trials, which the tables have. What was
published about the H800 is drawn in.

A link stands at its specified rate (bytes per second, one direction, per device), because that is
what links are known by; of two levels at the slower one.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from math import isfinite

from bench.analysis.scaling import families, fastest_links, slowdown
from bench.analysis.trials.configuration import LAYOUT, Trials, grouped
from bench.analysis.trials.titles import differing, mitigations_of
from bench.core.errors import BenchError
from bench.core.nouns import MODES
from bench.core.units import counted, format_number
from bench.hardware.links.presets import LinkLevel, load_links
from bench.hardware.links.topology import parse_topology
from bench.report.page.content import Plot, Plots
from bench.report.plots.kinds import Axis, DrawnCurve, ShadedBand, is_drawable, line, tick
from bench.report.plots.panel import Value, short
from bench.report.tables.cells import change_span, text_of
from bench.report.tables.links_tables import workload_title

MAX_PANELS = 6
MAX_CURVES = 8
_MOST_NAMES = 8
_MOST_CHARACTERS = 300
_FILES = (".yaml", ".yml")

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
_BAR_NOTE = (
    "Bars: bracket, from fast link without contention to slow link, on a GPU with full contention."
)

Drawn = tuple[Trials, float, Value]
"""A run with its place on the axis and its figure."""
Curves = Mapping[str, Sequence[Drawn]]
"""Curves of a panel by name."""


def swept(shown: Sequence[Trials]) -> list[Trials]:
    """Runs over several devices or a modelled link, and one device on the same terms.

    One device may be there in another mode; nothing is divided by it then.
    """
    terms = {run.terms(but=LAYOUT) for run in shown if run.is_wide}
    return [run for run in shown if run.terms(but=LAYOUT) in terms]


def bytes_per_s_of(name: str) -> float | None:
    """Rate of a link as a row names it: 'h800-nvlink', 'bw=25GB/s,...', 'h800-nvlink*8/ndr*4'.

    None for a link without a finite rate, and for one that only its own file describes: a name out
    of a result file is never opened as a path.
    """
    if len(name) > _MOST_CHARACTERS or any(ending in name.lower() for ending in _FILES):
        return None
    try:
        topology = parse_topology(name)
    except BenchError:
        return None
    rates = [_rate(level) for level in (topology.inner, topology.outer) if level is not None]
    return min((rate for rate in rates if isfinite(rate) and rate > 0.0), default=None)


def _rate(level: LinkLevel) -> float:
    # A level's own rate is what large messages reach.
    specified = {link.id: link.bytes_per_s for link in load_links()}.get(level.text)
    if specified is not None:
        return specified
    # A mesh that was described by one of its links has no rate of the whole device.
    return level.bytes_per_s if isfinite(level.bytes_per_s) else level.pair_bytes_per_s


def _panels(
    curves: Iterable[Sequence[Drawn]],
    *,
    runs: Sequence[Trials],
    with_link: bool,
    panel: Callable[[str, Curves], Plot],
    notes: Sequence[str],
) -> Plots | None:
    """A panel a workload, where any of its curves or all together are at two places or more."""
    params = differing(run.first for run in runs)
    found: dict[str, dict[str, Sequence[Drawn]]] = {}
    for points in curves:
        run = points[-1][0]
        named = found.setdefault(workload_title(run, params), {})
        named[_curve_name(run, with_link=with_link, taken=named)] = points
    drawn = [(title, named) for title, named in found.items() if _num_places(*named.values()) > 1]
    if not drawn:
        return None
    left = [f"{MAX_PANELS} of {len(drawn)} panels are drawn."] if len(drawn) > MAX_PANELS else []
    plots = (panel(title, dict([*named.items()][:MAX_CURVES])) for title, named in drawn)
    return Plots(panels=tuple(islice(plots, MAX_PANELS)), note=" ".join([*notes, *left]))


def _num_places(*curves: Sequence[Drawn]) -> int:
    return len({place for points in curves for _, place, _ in points})


def _curve_name(run: Trials, *, with_link: bool, taken: Collection[str]) -> str:
    """How a curve is called: over devices (`with_link`) or over links, numbered if it is taken."""
    layout = run.text("layout")
    parts = [
        "" if with_link else f"x{run.num_devices}",
        run.text("parallel"),
        run.link if with_link else layout if " x " in layout else "",
        mitigations_of(run.first),
        run.one_device,
        run.file,
        "" if run.mode == "real" else f"[{run.mode}]",
    ]
    name = " ".join(part for part in parts if part)
    alike = [other for other in taken if other == name or other.startswith(f"{name} (")]
    return f"{name} ({len(alike) + 1})" if alike else name


def slowdown_plots(runs: Sequence[Trials]) -> Plots | None:
    """Slowdown over bandwidth; None where no layout was run over two links of known bandwidth."""
    fastest = fastest_links(runs)
    curves: dict[tuple[str, ...], list[Drawn]] = {}
    unplaced: dict[str, None] = {}
    for run in runs:
        found = slowdown(run, fastest=fastest)
        if found is None and run not in fastest.values():
            continue
        rate = bytes_per_s_of(run.link)
        if rate is None:
            unplaced[short(run.link, length=24)] = None
            continue
        ends = (None if found is None else found.ends) or (None, None)
        value = (1.0 if found is None else found.ratio.value, *ends)
        if is_drawable(rate / 1e9, *value):
            curves.setdefault(run.terms(but=("link",)), []).append((run, rate / 1e9, value))
    notes = ["Each curve is against its own fastest link.", _BAR_NOTE, _CLAIM_NOTE]
    if unplaced:
        more = f" and {len(unplaced) - 2} more" if len(unplaced) > 2 else ""
        names = ", ".join(list(unplaced)[:2])
        notes.append(f"Not drawn, for want of a finite bandwidth known here: {names}{more}.")
    by_rate = (sorted(points, key=lambda point: point[1]) for points in curves.values())
    return _panels(by_rate, runs=runs, with_link=False, panel=_slowdown, notes=notes)


def _slowdown(title: str, curves: Curves) -> Plot:
    drawn = []
    for number, (name, points) in enumerate(curves.items()):
        # A little apart, so that bars of several curves at one link do not hide each other.
        apart = 1.025 ** (number % 4 - 1)
        words = ", ".join(_slower(*point) for point in reversed(points))
        drawn.append(_curve(name, points, words=words, apart=apart))
    high = max(end for curve in drawn for _, value in curve.points for end in value if end)
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
        curves=drawn,
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
    name: str,
    points: Sequence[Drawn],
    *,
    words: str,
    apart: float = 1.0,
    level: float | None = None,
) -> DrawnCurve:
    mode = points[-1][0].mode
    return DrawnCurve(
        label=name,
        points=[(place * apart, value) for _, place, value in points],
        words=f"{name}: {words}",
        # A shape stands for a mode in every panel.
        shape=MODES.index(mode) if mode in MODES else 0,
        is_hollow=mode != "real",
        level=level,
    )


def _link_names(points: Sequence[Drawn]) -> list[tuple[float, str]]:
    """Places of links with their names, the fastest first."""
    by_place = grouped(sorted(points, key=lambda point: -point[1]), lambda point: point[1])
    named = []
    for place, there in list(by_place.items())[:_MOST_NAMES]:
        first, *others = dict.fromkeys(run.link for run, _, _ in there)
        more = f" +{len(others)}" if others else ""
        named.append((place, short(first, length=16) + more))
    return named


def scaling_plots(runs: Sequence[Trials]) -> Plots | None:
    """Items per second and device over the number of devices, a panel per workload."""
    curves = []
    for family in families(runs):
        speeds = [(run, float(run.num_devices), _speed_of(run)) for run in family]
        points = [(run, place, value) for run, place, value in speeds if value is not None]
        if _num_places(points) > 1:
            curves.append(points)
    note = (
        "Level is perfect scaling; dotted: one device in the same mode. Bars: speed at both ends "
        "of the step's bracket."
    )
    return _panels(curves, runs=runs, with_link=True, panel=_scaling, notes=[note])


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


def _scaling(title: str, curves: Curves) -> Plot:
    drawn = []
    for name, points in curves.items():
        words = ", ".join(
            f"{counted(round(place), 'device')} {format_number(v[0])}" for _, place, v in points
        )
        level = points[0][2][0] if points[0][1] == 1.0 else None
        drawn.append(_curve(name, points, words=words, level=level))
    unit = next(iter(curves.values()))[-1][0].first.get("items_unit") or "item"
    return line(
        f"scaling {title}",
        title=title,
        what="Items per second and device over number of devices",
        curves=drawn,
        x=Axis(label="devices", scale="counts", form=lambda value: f"{value:.0f}"),
        y=Axis(label=f"{unit}/s of one device", scale="zero"),
    )
