"""Panels of training against inference, and of both under the roofline of their device.

A phase is placed only where work, traffic and both roofs are known; the section's text names the
others. Several devices are not placed: the roofs are those of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.analysis.demand import Demand
from bench.analysis.estimates import LogEstimate
from bench.analysis.gap import Gap
from bench.core.units import format_number, format_si
from bench.report.page.content import Plot, Plots
from bench.report.plots.marks import dots, is_drawable, label_below, log_axis, look
from bench.report.plots.panel import INK, ROW_INCHES, Value, color_of, draw, marker_of, short
from bench.report.plots.plots_speed import in_words
from bench.report.tables.demand_titles import differing, full_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_GAPS = 6
MAX_ROOFLINES = 4
MAX_POINTS = 8
_ASPECTS = ("time", "flops", "memory", "energy", "utilisation")


def gap_plots(gaps: Sequence[Gap]) -> Plots | None:
    """Ratios of training to inference, a panel per pair of phases and device."""
    found = [gap for gap in gaps if _aspects(gap)]
    if not found:
        return None
    shown = differing(gap.train.setting for gap in found)
    panels = [_gap_panel(gap, shown=shown) for gap in found[:MAX_GAPS]]
    hidden = len(found) - len(panels)
    note = f"{hidden} further pairs are in the table only." if hidden else ""
    return Plots(panels=tuple(panels), note=note)


def _value(estimate: LogEstimate) -> Value:
    low, high = estimate.interval or (None, None)
    return estimate.value, low, high


def _aspects(gap: Gap) -> dict[str, Value]:
    """Ratios that are known, by what they are of."""
    known = {name: getattr(gap, name) for name in _ASPECTS}
    values = {name: _value(ratio) for name, ratio in known.items() if ratio is not None}
    return {name: value for name, value in values.items() if is_drawable(*value)}


def _gap_panel(gap: Gap, *, shown: Sequence[str]) -> Plot:
    found = _aspects(gap)
    values = list(found.values())
    labels = ["FLOPs" if name == "flops" else name for name in found]
    is_real = gap.train.setting.fact("mode") in ("real", "")
    per = f" per {gap.unit}" if gap.unit else ""

    def paint(axes: Axes) -> None:
        dots(
            axes,
            values=values,
            labels=labels,
            numbers=list(range(len(labels))),
            is_hollow=[not is_real] * len(labels),
        )
        ends = [end for value in values for end in value if end is not None]
        log_axis(axes, values=[*ends, 1.0], which="x")
        axes.axvline(1.0, color=INK, linewidth=1, linestyle="--")
        label_below(axes, f"training over inference{per}; 1 is equal")

    name = f"{full_title(gap.train, shown=shown)} / {gap.infer.phase}"
    told = "; ".join(f"{a}: {in_words(v)} times" for a, v in zip(labels, values, strict=True))
    return draw(
        f"gap {name} {gap.train.device} {gap.train.setting.facts}",
        title=f"{name} on {gap.train.device}",
        description=f"What training asks over what inference asks{per}. {told}.",
        plot_inches=ROW_INCHES * len(labels) + 0.1,
        left_inches=0.95,
        paint=paint,
    )


def roofline_plots(found: Sequence[Demand]) -> Plots | None:
    """Each device's measured roofs with the phases that have work and traffic on it."""
    by_device: dict[str, list[Demand]] = {}
    for demand in found:
        if is_placeable(demand):
            by_device.setdefault(demand.device, []).append(demand)
    if not by_device:
        return None
    chosen = list(by_device.items())[:MAX_ROOFLINES]
    panels = [_roofline(device, demands[:MAX_POINTS]) for device, demands in chosen]
    drawn = sum(len(demands[:MAX_POINTS]) for _, demands in chosen)
    total = sum(map(len, by_device.values()))
    note = "" if drawn == total else f"{drawn} of {total} phases are drawn."
    return Plots(panels=tuple(panels), note=note)


def is_placeable(demand: Demand) -> bool:
    """Whether everything is known that a place under one device's roofline takes."""
    if is_on_several(demand) or demand.throughput_per_s is None:
        return False
    if demand.flops_per_byte is None or demand.ridge_flops_per_byte is None:
        return False
    return is_drawable(
        _speed(demand),
        demand.flops_per_byte,
        demand.ridge_flops_per_byte,
        demand.roof_flops_per_s,
        demand.roof_bytes_per_s,
    )


def is_on_several(demand: Demand) -> bool:
    """Whether several devices shared the work, for whom one device's roofs say nothing."""
    return demand.setting.fact("device_count") not in ("", "1")


def _speed(demand: Demand) -> float:
    assert demand.throughput_per_s is not None and demand.flops_per_item is not None
    return demand.throughput_per_s.value * demand.flops_per_item


def _roofs(demands: Sequence[Demand]) -> list[tuple[float, float, str]]:
    """Distinct (FLOP/s, bytes/s, dtype) of one device."""
    roofs = {
        (demand.roof_flops_per_s or 0.0, demand.roof_bytes_per_s or 0.0): demand.setting.fact(
            "dtype"
        )
        for demand in demands
    }
    return [(flops, rate, dtype) for (flops, rate), dtype in sorted(roofs.items())]


def _roofline(device: str, demands: Sequence[Demand]) -> Plot:
    roofs = _roofs(demands)
    places = [(demand.flops_per_byte or 1.0, _speed(demand)) for demand in demands]
    shown = differing(demand.setting for demand in demands)
    names = [full_title(demand, shown=shown) for demand in demands]
    ridges = [flops / rate for flops, rate, _ in roofs]
    left = min([x for x, _ in places] + ridges) / 4.0
    right = max([x for x, _ in places] + ridges) * 4.0

    def paint(axes: Axes) -> None:
        for flops, rate, dtype in roofs:
            ridge = flops / rate
            line_x, line_y = [left, ridge, right], [left * rate, flops, flops]
            axes.plot(line_x, line_y, color=INK, linewidth=1.4)
            axes.annotate(
                f"{dtype} roof {format_si(flops, 'FLOP/s')}",
                (right, flops),
                xytext=(-2, 3),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=8.0,
            )
        lows = [y for _, y in places] + [left * rate for _, rate, _ in roofs]
        log_axis(axes, values=[left * 1.4, right / 1.4], which="x")
        log_axis(axes, values=[min(lows), max(f for f, _, _ in roofs) * 1.6], which="y")
        for number, (demand, (x, y)) in enumerate(zip(demands, places, strict=True)):
            _point(axes, x=x, y=y, number=number, demand=demand, name=names[number])
        label_below(axes, "FLOP per byte of least memory traffic")
        axes.set_ylabel("FLOP/s")

    told = "; ".join(
        _told(demand, name=name, x=x, y=y)
        for demand, name, (x, y) in zip(demands, names, places, strict=True)
    )
    return draw(
        f"roofline {device}",
        title=device,
        description=f"Speed over arithmetic intensity, logarithmic, under measured roofs. {told}.",
        plot_inches=2.5,
        num_legend_lines=len(demands),
        paint=paint,
    )


def _point(axes: Axes, *, x: float, y: float, number: int, demand: Demand, name: str) -> None:
    is_real = demand.setting.fact("mode") in ("real", "")
    axes.plot(
        [x],
        [y],
        marker_of(number),
        label=short(f"{name}: {_reached(demand)}", length=60),
        zorder=3,
        **look(color_of(number), is_hollow=not is_real),  # type: ignore[arg-type]
    )


def _reached(demand: Demand) -> str:
    assert demand.reached_frac is not None
    return f"{demand.reached_frac * 100:.3g} % of the {demand.roof} roof"


def _told(demand: Demand, *, name: str, x: float, y: float) -> str:
    place = f"{format_number(x)} FLOP per byte, {format_si(y, 'FLOP/s')}"
    return f"{name}: {place}, {_reached(demand)}"
