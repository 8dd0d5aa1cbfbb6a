"""What `bench gap` shows: ratios of training to inference, rooflines, and a user's own figures."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.demand import Demand
from bench.analysis.gap import DeviceGap, Gap, Missing
from bench.analysis.gap_result import GapResult
from bench.analysis.needs import Share, Training, items_per_day
from bench.core.units import format_bytes, format_duration, format_number, format_si
from bench.report.tables.demand_titles import differing, setting_title, title
from bench.report.tables.grid import Grid
from bench.report.tables.quantities import figure, ratio


def gap_grid(gaps: Sequence[Gap]) -> Grid:
    """Training over inference: time, FLOPs, memory, energy, utilisation."""
    shown = differing(gap.train.setting for gap in gaps)
    rows = [
        (
            f"{title(gap.train, shown=shown)} / {gap.infer.phase}",
            gap.train.device,
            gap.unit or "",
            ratio(gap.time),
            ratio(gap.flops),
            ratio(gap.memory),
            ratio(gap.energy),
            ratio(gap.utilisation),
            f"{gap.train.num_trials}, {gap.infer.num_trials}",
        )
        for gap in gaps
    ]
    heads = ("train / infer", "device", "per", "time>", "FLOPs>", "memory>", "energy>",
             "utilisation>", "trials>")  # fmt: skip
    return Grid(
        heads=heads, rows=rows, title="Training over inference [95 %]", notes=_gap_notes(gaps)
    )


def _gap_notes(gaps: Sequence[Gap]) -> tuple[str, ...]:
    notes = []
    for gap in gaps:
        pair = f"{gap.train.name} and {gap.infer.name}"
        if gap.is_per_element:
            notes.append(
                f"{pair} count different items ({gap.train.items_unit}, {gap.infer.items_unit}), "
                f"so they are compared per {gap.unit}"
            )
        elif gap.unit is None:
            notes.append(
                f"{pair} have no unit in common ({gap.train.items_unit or 'blank'}, "
                f"{gap.infer.items_unit or 'blank'}): only memory and utilisation are compared"
            )
        if gap.energy is None:
            notes.append(f"no energy ratio of {pair} on {gap.train.device}: {_why_no_energy(gap)}")
    return tuple(dict.fromkeys(notes))


def _why_no_energy(gap: Gap) -> str:
    blank = [d.phase for d in (gap.train, gap.infer) if d.energy_per_item_j is None]
    return f"not measured in {' and '.join(blank)}" if blank else "measured in different ways"


def demand_grid(found: Sequence[Demand]) -> Grid:
    """Each phase by itself: absolute figures."""
    shown = differing(demand.setting for demand in found)
    rows = [
        (
            title(demand, shown=shown),
            demand.device,
            demand.items_unit,
            figure(demand.time_per_item_s, format_duration),
            "" if not demand.flops_per_item else format_si(demand.flops_per_item, "FLOP"),
            figure(demand.memory_bytes, format_bytes),
            figure(demand.energy_per_item_j, lambda joules: format_si(joules, "J")),
            figure(demand.utilisation, lambda share: f"{share * 100:.3g} %"),
            _items_per_day(demand),
        )
        for demand in found
        if demand.num_trials
    ]
    heads = ("phase", "device", "item", "time/item>", "work/item>", "memory>", "energy/item>",
             "utilisation>", "items/day>")  # fmt: skip
    return Grid(heads=heads, rows=rows, title="Each phase by itself [95 %]", notes=_kinds(found))


def _items_per_day(demand: Demand) -> str:
    # Its interval is that of the time beside it.
    a_day = items_per_day(demand)
    return "" if a_day is None else format_number(a_day.value)


def roofline_grid(found: Sequence[Demand]) -> Grid:
    """Where each phase lies under the roofs that were measured on its device."""
    shown = differing(demand.setting for demand in found)
    rows = [
        (
            title(demand, shown=shown),
            demand.device,
            format_number(demand.flops_per_byte),
            _number(demand.ridge_flops_per_byte),
            demand.roof or "roofs not measured",
            "" if demand.reached_frac is None else f"{demand.reached_frac * 100:.3g} %",
        )
        for demand in found
        if demand.num_trials and demand.flops_per_byte is not None
    ]
    heads = ("phase", "device", "FLOP/byte>", "ridge>", "lower roof", "reached of it>")
    notes = (
        "FLOP/byte is model work over least memory traffic, both by formula; above the ridge the "
        "compute roof is the lower one, below it bandwidth",
    )
    return Grid(heads=heads, rows=rows, title="Under the measured roofline", notes=notes)


def _number(value: float | None) -> str:
    return "" if value is None else format_number(value)


def _kinds(found: Sequence[Demand]) -> tuple[str, ...]:
    memory = sorted({d.memory_kind for d in found if d.memory_kind})
    used = sorted({d.utilisation_kind for d in found if d.utilisation_kind})
    notes = [f"memory is the peak of: {', '.join(memory)}"] if memory else []
    return (*notes, *([f"utilisation is a share {', '.join(used)}"] if used else []))


def device_grid(gaps: Sequence[DeviceGap]) -> Grid:
    """Time per item on B over A, in training and in inference, and how far these lie apart."""
    shown = differing(gap.setting for gap in gaps)
    rows = [
        (
            setting_title(gap.setting, shown=shown),
            gap.device_a,
            gap.device_b,
            ratio(gap.train),
            f"{gap.infer_phase} {ratio(gap.infer)}",
            ratio(gap.train_over_infer),
        )
        for gap in gaps
    ]
    heads = ("workload", "A", "B", "train B/A>", "inference B/A>", "train / inference>")
    return Grid(
        heads=heads,
        rows=rows,
        title="Between two devices: time per item [95 %]",
        notes=("train / inference over 1: training loses more than inference on the way to B",),
    )


def training_grid(found: Sequence[tuple[Demand, Training]]) -> Grid:
    """Time and energy of a training of stated length."""
    shown = differing(demand.setting for demand, _ in found)
    rows = [
        (
            title(demand, shown=shown),
            demand.device,
            f"{format_number(plan.num_items)} {demand.items_unit}",
            figure(plan.time_s, format_duration),
            figure(plan.energy_j, lambda joules: format_si(joules / 3600.0, "Wh")),
        )
        for demand, plan in found
    ]
    return Grid(
        heads=("training", "device", "items>", "time>", "energy>"),
        rows=rows,
        title="A whole training [95 %]",
    )


def share_grid(found: Sequence[tuple[Demand, Share]], *, load: str, latency: str | None) -> Grid:
    """Part of the device that a stated inference load needs."""
    shown = differing(demand.setting for demand, _ in found)
    rows = [
        (
            title(demand, shown=shown),
            demand.device,
            demand.items_unit,
            figure(need.for_rate, _share),
            "" if need.for_latency is None else _share(need.for_latency),
            f"{_share(need.needed)} ({need.because})",
        )
        for demand, need in found
    ]
    asked = f"{load} within {latency}" if latency else load
    notes = ["a slice of a device is taken to be as much slower as it is smaller"]
    if any(need.for_latency is not None and not need.is_p90 for _, need in found):
        notes.append("latency is a median where too few steps were measured for a 90th percentile")
    return Grid(
        heads=("inference", "device", "item", "for the rate>", "for the latency>", "share needed>"),
        rows=rows,
        title=f"Share of one device for {asked}",
        notes=tuple(notes),
    )


def _share(value: float) -> str:
    return f"{value * 100:.3g} %" if value <= 1.0 else f"{value:.3g} devices"


def grids(result: GapResult, *, load: str, latency: str | None) -> list[Grid]:
    """Every table that has a row."""
    found = [
        gap_grid(result.gaps),
        demand_grid(result.demands),
        roofline_grid(result.demands),
        device_grid(result.device_gaps),
        training_grid(result.trainings),
        share_grid(result.shares, load=load, latency=latency),
    ]
    return [grid for grid in found if grid.rows]


def missing_lines(missing: Sequence[Missing], *, commands: Sequence[str]) -> list[str]:
    """What is missing for a ratio, and the command that would measure it."""
    lines = []
    shown = differing(half.present.setting for half in missing)
    for half, command in zip(missing, commands, strict=True):
        lacks = "training" if half.lacks_training else "inference"
        there = f"{title(half.present, shown=shown)} on {half.present.device}"
        lost = f" ({half.tried.name} was tried: {half.tried.lost_reasons})" if half.tried else ""
        how = half.why_never or f"measure it: {command}"
        lines.append(f"{there} has no {lacks} beside it{lost}; {how}")
    return lines
