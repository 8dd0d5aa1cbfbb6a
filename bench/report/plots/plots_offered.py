"""Panels of served runs: who was in time at each offered rate, and how a day's hours are used.

One panel for each workload and limit, a colour for each setting: its live runs with their
intervals, and its knee as a band. Shares are drawn by what is missing to 100 %, so that 99 and
99.9 % lie as far apart as 90 and 99 %; all of it is at the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from bench.analysis.offered_load import (
    NUM_HOURS,
    LiveRun,
    OfferedLoad,
    RunsOf,
    used_by_hour,
)
from bench.analysis.trials.configuration import Trials, grouped, number
from bench.analysis.trials.titles import differing, title_of
from bench.report.page.content import Plot, Plots
from bench.report.plots import kinds, panel
from bench.report.plots.kinds import Axis, DrawnCurve
from bench.report.plots.panel import short
from bench.report.tables.cells import ends_of, quantity, text_of
from bench.report.tables.offered_table import TITLE, carried, rate_scale, share_cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS, MAX_CURVES, MAX_DAYS = 6, 4, 6
_LEAST_AT, _MOST_AT = 0.5, 0.999
_NAME_LENGTH = 17
_SHARES_INCHES, _HOURS_INCHES = 2.1, 1.5


_NOTE = (
    "In time: within the limit from the scheduled arrival on. Band: somewhere in it the limit "
    "stops holding; its edges are dotted where no live run confirmed it."
)


def offered_plots(loads: Sequence[OfferedLoad]) -> Plots | None:
    """Share of the requests in time over the rate at which they came."""
    drawable = [one for one in loads if one.at is not None and _places(one)]
    groups = grouped(drawable, lambda one: f"{one.first.text('workload')}, limit {one.slo}")
    plots = kinds.panels(groups, _shares, most=(MAX_PANELS, MAX_CURVES), what="settings")
    if plots is None:
        return None
    return replace(plots, note=" ".join(filter(None, (_NOTE, plots.note))))


def _shares(title: str, found: Sequence[OfferedLoad]) -> Plot:
    at = min(max(found[0].at or 0.0, _LEAST_AT), _MOST_AT)
    units = {one.unit for one in found}
    unit = units.pop() if len(units) == 1 else "request"
    places = [place for one in found for place in _places(one)]
    size, unit_of_rate = rate_scale(unit)(max(places))
    names = _names(found)
    curves = [
        _curve(one, name=name, shape=shape, unit=unit, size=size)
        for shape, (one, name) in enumerate(zip(found, names, strict=True))
    ]
    least = min((end for one in found for live in one.live for end in _ends(live)), default=at)

    def paint(axes: Axes) -> None:
        x = Axis(label=f"offered, {unit_of_rate}", scale="zero")
        x.lay_out(axes, "x", values=[place / size for place in places])
        _lay_out_shares(axes, at=at, least=least)
        for place, (one, curve) in enumerate(zip(found, curves, strict=True)):
            _band(axes, one, size=size, color=panel.color_of(place))
            kinds.draw_curve(axes, curve, number=place)
        axes.axhline(1.0 - at, color=panel.INK, linewidth=1, linestyle="--")
        style = {"xytext": (4, -3), "textcoords": "offset points", "fontsize": 8.0}
        wanted = f"wanted: {text_of(share_cell(at))}"
        axes.annotate(wanted, (0.0, 1.0 - at), va="top", **style)  # type: ignore[arg-type]

    return panel.draw(
        f"offered {title}",
        title=title,
        description="Requests in time, from their scheduled arrival, over the rate offered. "
        f"{'; '.join(curve.words for curve in curves)}.",
        plot_inches=_SHARES_INCHES,
        num_legend_lines=len(curves),
        paint=paint,
    )


def _names(found: Sequence[OfferedLoad]) -> list[str]:
    """What distinguishes the settings of a panel, the device first."""
    shown = (*TITLE, *differing(one.first.first for one in found))
    words = [
        (
            short(one.first.one_device, length=14),
            *title_of(one.first.first, shown=shown).split(),
            one.law,
            f"{one.first.text('max_batch')} at once",
            one.first.text("engine"),
            one.first.file,
        )
        for one in found
    ]
    common = set(words[0]).intersection(*words[1:])
    return [" ".join(word for word in each if word not in common) or "carries" for each in words]


def _places(one: OfferedLoad) -> list[float]:
    """Rates that a panel has to reach."""
    ends = [] if one.knee is None else [one.knee.low_per_s, one.knee.high_per_s]
    return [*(live.offered_per_s for live in one.live), *filter(None, ends)]


def _ends(live: LiveRun) -> list[float]:
    return [live.share if live.low is None else live.low]


def _curve(one: OfferedLoad, *, name: str, shape: int, unit: str, size: float) -> DrawnCurve:
    rate, how = carried(one, unit=unit)
    words = ", ".join(_words(live, one, unit=unit) for live in one.live)
    label = f"{short(name, length=_NAME_LENGTH)}: {f'{rate} ({how})' if rate else 'not known'}"
    return DrawnCurve(
        label=label,
        points=[(live.offered_per_s / size, _missing(live)) for live in one.live],
        words=f"{label}: {words or 'no live run'}",
        shape=shape,
        is_hollow=one.first.mode != "real",
    )


def _missing(live: LiveRun) -> panel.Value:
    """What is missing to all requests, with its ends."""
    if live.low is None or live.high is None:
        return 1.0 - live.share, None, None
    return 1.0 - live.share, 1.0 - live.high, 1.0 - live.low


def _words(live: LiveRun, one: OfferedLoad, *, unit: str) -> str:
    share = text_of(share_cell(live.share, ends=ends_of(live.low, live.high)))
    rate = text_of(quantity(live.offered_per_s, rate_scale(unit)))
    return f"{share} in time at {rate} {live.verdict(one.at)}".strip()


def _lay_out_shares(axes: Axes, *, at: float, least: float) -> None:
    """All at the top; what is missing grows tenfold from tick to tick."""
    from matplotlib.ticker import FixedLocator, NullLocator

    nearest = (1.0 - at) / 10.0
    bottom = min(1.0, max(1.6 * (1.0 - least), 4.0 * (1.0 - at)))
    axes.set_yscale("symlog", linthresh=nearest, linscale=0.6)
    axes.set_ylim(bottom, -0.15 * nearest)
    steps = takewhile(lambda one: one <= bottom, (nearest * 10.0**power for power in range(9)))
    ticks = [0.0, *steps]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda missing, _: f"{100.0 * (1.0 - missing):.6g} %")
    axes.set_ylabel("requests in time")


def _band(axes: Axes, one: OfferedLoad, *, size: float, color: str) -> None:
    knee = one.knee
    if knee is None or knee.low_per_s is None or knee.high_per_s is None:
        return
    ends = (knee.low_per_s / size, knee.high_per_s / size)
    is_confirmed = not {*knee.how} - {"confirmed", "measured"}
    axes.axvspan(*ends, color=color, alpha=0.22 if is_confirmed else 0.1, linewidth=0)
    for end in ends:
        axes.axvline(end, color=color, linewidth=0.9, linestyle="-" if is_confirmed else ":")


def hours_plots(days: Sequence[Trials], *, runs_of: RunsOf) -> Plots | None:
    """How full the server was in each hour of a day, of the first run whose requests are kept."""
    groups: dict[str, list[list[float]]] = {}
    for day in days:
        for row in day.used:
            kept = next((run.get("requests") for run in runs_of(day, row)), None)
            window_s = number(row, "window_s")
            if isinstance(kept, list) and window_s and number(row, "utilisation_frac"):
                arrivals = str(row["arrivals"]).partition("#")[0]
                groups.setdefault(f"{title_of(row, shown=TITLE)}, {arrivals}", []).append(
                    used_by_hour([one for one in kept if isinstance(one, dict)], window_s=window_s)
                )
    return kinds.panels(groups, lambda title, used: _hours(title, used[0]), most=(MAX_DAYS, 1))


def _hours(title: str, used: Sequence[float]) -> Plot:
    def paint(axes: Axes) -> None:
        axes.bar(range(NUM_HOURS), used, width=0.86, align="edge", color=panel.color_of(0))
        Axis(label="hour of the day", scale="order", form=lambda one: f"{one:g}").lay_out(
            axes, "x", values=[0.0, NUM_HOURS]
        )
        axes.set_xlim(-0.2, NUM_HOURS + 0.2)
        axes.set_xticks(range(0, NUM_HOURS + 1, 4))
        axes.axhline(1.0, color=panel.INK, linewidth=1, linestyle="--")
        axes.set(ylim=(0.0, 1.08), ylabel="server works")
        axes.yaxis.set_major_formatter(lambda share, _: f"{100.0 * share:.0f} %")

    busiest = max(range(NUM_HOURS), key=used.__getitem__)
    hours = ", ".join(f"{hour} h {100.0 * share:.3g} %" for hour, share in enumerate(used))
    return panel.draw(
        f"hours {title}",
        title=title,
        description=f"Share of each hour in which the server worked, most at {busiest} h: {hours}.",
        plot_inches=_HOURS_INCHES,
        paint=paint,
    )
