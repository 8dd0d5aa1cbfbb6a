"""Panels of training against inference, and of both under the roofline of their device.

A phase is placed only where work, traffic and both roofs are known; the section's text names the
others. Several devices are not placed: the roofs are those of one.
"""

from collections import Counter
from collections.abc import Sequence

from bench.analysis.gap.demand import Demand
from bench.analysis.gap.gap_result import Gap
from bench.analysis.trials.configuration import grouped
from bench.core.units import format_number, format_si
from bench.report.page.content import Plot, Plots
from bench.report.plots import kinds
from bench.report.plots.kinds import Axis, DrawnCurve, DrawnMark
from bench.report.plots.panel import Value, value_of
from bench.report.tables.gap_tables import apart, full_title, pair_of

MAX_GAPS = 6
MAX_PAIRS = 40
MAX_ROOFLINES = 4
MAX_POINTS = 8
_ASPECTS = ("time", "flops", "memory", "energy", "utilisation")


def overview_plot(gaps: Sequence[Gap]) -> Plots | None:
    """One panel with the time ratio of every pair, from where training asks most to least."""
    known = [(value, gap) for gap in gaps if (value := _aspects(gap).get("time"))]
    if len(known) < 2:
        return None
    known.sort(key=lambda one: one[0][0], reverse=True)
    labels = _labels([gap for _, gap in known])
    marks = [
        DrawnMark(
            label=label,
            value=value,
            series=0 if value[0] >= 1.0 else 1,
            is_hollow=gap.train.trials.mode != "real",
            band=gap.published.in_one_precision if gap.published else None,
            remark="times",
        )
        for label, (value, gap) in zip(labels, known[:MAX_PAIRS], strict=False)
    ]
    devices = list(dict.fromkeys(gap.train.device for _, gap in known))
    bands = [end for mark in marks for end in mark.band or ()]
    plot = kinds.interval(
        f"gaps of all {devices}",
        title="All pairs" + (f" on {devices[0]}" if len(devices) == 1 else ""),
        what="Time of training over time of inference, item for item. Right of 1 training asks "
        "more, left of it applying the net does",
        marks=marks,
        axis=Axis(
            label="time of training over inference per item; 1 is equal",
            scale="log",
            low=min(bands, default=None),
            high=max(bands, default=None),
        ),
        reference=1.0,
        legend=[("training asks more", 0), ("applying the net asks more", 1)],
    )
    hidden = len(known) - len(marks)
    notes = ["Grey: where published ratios of such a net lie."] if bands else []
    notes += [f"{hidden} further pairs are not drawn."] if hidden else []
    return Plots(panels=(plot,), note=" ".join(notes))


def _labels(gaps: Sequence[Gap]) -> list[str]:
    """'video-infer, per clip'; in full where such a phase is there twice."""
    shown = apart(gap.train for gap in gaps)
    names = Counter(gap.infer.name for gap in gaps)
    places = len({gap.train.device for gap in gaps})
    return [
        (gap.infer.name if names[gap.infer.name] == 1 else full_title(gap.infer, shown=shown))
        + (f", per {gap.unit}" if gap.unit else "")
        + (f" on {gap.train.device}" if places > 1 else "")
        for gap in gaps
    ]


def gap_plots(gaps: Sequence[Gap]) -> Plots | None:
    """Ratios of training to inference, a panel per pair of phases and device."""
    found = [gap for gap in gaps if _aspects(gap)]
    shown = apart(gap.train for gap in found)
    return kinds.panels(
        {str(number): [gap] for number, gap in enumerate(found)},
        lambda _, one: _gap_panel(one[0], shown=shown),
        most=(MAX_GAPS, 1),
        what="pairs",
    )


def _aspects(gap: Gap) -> dict[str, Value]:
    """Ratios that are known, by what they are of."""
    known = {name: value_of(getattr(gap, name)) for name in _ASPECTS}
    return {name: value for name, value in known.items() if value and kinds.is_drawable(*value)}


def _gap_panel(gap: Gap, *, shown: Sequence[str]) -> Plot:
    per = f" per {gap.unit}" if gap.unit else ""
    name = full_title(gap.train, name=pair_of(gap), shown=shown)
    marks = [
        DrawnMark(
            label="FLOPs" if aspect == "flops" else aspect,
            value=value,
            series=number,
            is_hollow=gap.train.trials.mode != "real",
            remark="times",
        )
        for number, (aspect, value) in enumerate(_aspects(gap).items())
    ]
    return kinds.interval(
        f"gap {name} {gap.train.device} {gap.train.setting}",
        title=f"{name} on {gap.train.device}",
        what=f"What training asks over what inference asks{per}",
        marks=marks,
        axis=Axis(label=f"training over inference{per}; 1 is equal", scale="log"),
        reference=1.0,
    )


def roofline_plots(found: Sequence[Demand]) -> Plots | None:
    """Each device's measured roofs with the phases that have work and traffic on it."""
    placed = (demand for demand in found if is_placeable(demand))
    by_device = grouped(placed, lambda demand: demand.device)
    return kinds.panels(by_device, _roofline, most=(MAX_ROOFLINES, MAX_POINTS), what="phases")


def is_placeable(demand: Demand) -> bool:
    """Whether everything is known that a place under one device's roofline takes."""
    if demand.trials.num_devices > 1 or demand.throughput_per_s is None:
        return False
    places = (demand.flops_per_byte, demand.ridge_flops_per_byte)
    roofs = (demand.roof_flops_per_s, demand.roof_bytes_per_s)
    return None not in places and kinds.is_drawable(_speed(demand), *places, *roofs)


def _speed(demand: Demand) -> float:
    assert demand.throughput_per_s is not None and demand.flops_per_item is not None
    return demand.throughput_per_s.value * demand.flops_per_item


def _roofline(device: str, demands: Sequence[Demand]) -> Plot:
    shown = apart(demands)
    curves = []
    for number, demand in enumerate(demands):
        name, x, y = full_title(demand, shown=shown), demand.flops_per_byte or 1.0, _speed(demand)
        place = f"{format_number(x)} FLOP per byte, {format_si(y, 'FLOP/s')}"
        assert demand.reached_frac is not None
        reached = f"{demand.reached_frac * 100:.3g} % of the {demand.roof} roof"
        curves.append(
            DrawnCurve(
                label=f"{name}: {reached}",
                points=[(x, (y, None, None))],
                words=f"{name}: {place}, {reached}",
                shape=number,
                is_hollow=demand.trials.mode != "real",
            )
        )
    # Of one dtype and device: FLOP/s and bytes/s.
    roofs = {
        (one.roof_flops_per_s or 0.0, one.roof_bytes_per_s or 0.0): one.trials.text("dtype")
        for one in demands
    }
    places = [demand.flops_per_byte or 1.0 for demand in demands]
    places += [flops / rate for flops, rate in roofs]
    left, right = min(places) / 4.0, max(places) * 4.0
    guides = [
        (
            f"{dtype} roof {format_si(flops, 'FLOP/s')}",
            [(left, left * rate), (flops / rate, flops), (right, flops)],
        )
        for (flops, rate), dtype in sorted(roofs.items())
    ]
    return kinds.line(
        f"roofline {device}",
        title=device,
        what="Speed over arithmetic intensity, logarithmic, under measured roofs",
        curves=curves,
        guides=guides,
        plot_inches=2.5,
        x=Axis(label="FLOP per byte of least memory traffic", scale="log"),
        y=Axis(label="FLOP/s", scale="log", high=max(flops for flops, _ in roofs) * 1.8),
    )
