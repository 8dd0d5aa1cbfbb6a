"""Panels of throughput, latency and energy: one per workload, one line per configuration.

Dots are geometric means over usable trials with their 95 % interval over trials; a configuration
with one trial has a dot alone. Hollow dots are not real measurements of that device (simulated,
emulated, throttled), and their labels say which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.core import statistics
from bench.core.units import format_number
from bench.report.page.content import Plot, Plots
from bench.report.page.evidence import Shown
from bench.report.plots.marks import dots, is_drawable, label_below
from bench.report.plots.panel import ROW_INCHES, Value, draw, label_inches, short
from bench.report.tables.run_table import swept_params, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 6
MAX_LINES = 12


def mean_of(shown: Shown, column: str) -> Value | None:
    """Geometric mean of a column over usable trials, with 95 % where there are two or more."""
    values = [value for value in shown.line.values(column) if value > 0.0]
    interval = statistics.mean_interval_log(values)
    if interval is not None:
        return interval
    return (values[0], None, None) if values else None


def throughput_plots(shown: Sequence[Shown]) -> Plots | None:
    """Items per second by device, a panel per workload."""
    return _panels(
        shown,
        name="throughput",
        what=lambda unit: f"{unit}/s",
        value=lambda one: mean_of(one, "throughput_per_s"),
        is_better="more is faster",
    )


def energy_plots(shown: Sequence[Shown]) -> Plots | None:
    """Energy per item by device, a panel per workload."""
    return _panels(
        shown,
        name="energy",
        what=lambda unit: f"J/{unit}",
        value=lambda one: mean_of(one, "energy_per_item_j"),
        is_better="less is better",
    )


def _step_range(shown: Shown) -> Value | None:
    middle, low, high = (
        shown.line.mean(name) for name in ("step_median_ms", "step_p05_ms", "step_p95_ms")
    )
    return None if middle is None else (middle, low, high)


def step_plots(shown: Sequence[Shown]) -> Plots | None:
    """Median step with its 5th to 95th percentile, a panel per workload."""
    return _panels(
        shown,
        name="steps",
        what=lambda _: "ms a step, 5th to 95th percentile",
        value=_step_range,
        is_better="less is faster",
    )


def _panels(
    shown: Sequence[Shown],
    *,
    name: str,
    what: Callable[[str], str],
    value: Callable[[Shown], Value | None],
    is_better: str,
) -> Plots | None:
    by_workload: dict[str, list[tuple[Shown, Value]]] = {}
    for one in shown:
        found = value(one)
        if found is not None and is_drawable(*found):
            by_workload.setdefault(str(one.line.first["workload"]), []).append((one, found))
    if not by_workload:
        return None
    numbers = device_numbers(shown)
    panels = [
        _panel(f"{name} {workload}", workload, found[:MAX_LINES], what, is_better, numbers)
        for workload, found in list(by_workload.items())[:MAX_PANELS]
    ]
    drawn = sum(len(found[:MAX_LINES]) for found in list(by_workload.values())[:MAX_PANELS])
    return Plots(panels=tuple(panels), note=left_out(drawn, of=sum(map(len, by_workload.values()))))


def left_out(drawn: int, *, of: int) -> str:
    """Line under plots that do not show everything."""
    return "" if drawn == of else f"{drawn} of {of} configurations are drawn; the table has more."


def device_numbers(shown: Sequence[Shown]) -> dict[str, int]:
    """Colour and shape of each device, the same in all panels."""
    names = dict.fromkeys(one.device for one in shown)
    return {name: number for number, name in enumerate(names)}


def labels_of(shown: Sequence[Shown]) -> list[str]:
    """What tells configurations of one workload apart, and no more than that."""
    params = swept_params([one.line for one in shown])
    titles = [title_of(one.line.first, shown_params=params).split(" ") for one in shown]
    common = set(titles[0]).intersection(*titles) if titles else set()
    has_devices = len({one.device for one in shown}) > 1
    labels = []
    for one, words in zip(shown, titles, strict=True):
        kept = [word for word in words[1:] if word not in common]
        device = one.device if has_devices or not kept else ""
        # What tells lines apart must survive when a label is cut.
        device = short(device, length=24) if kept or one.mode != "real" else device
        mode = "" if one.mode == "real" else f"[{one.mode}]"
        parts = [device, *(word for word in kept if word != mode), one.file, mode]
        labels.append(" ".join(part for part in parts if part))
    return labels


def _panel(
    name: str,
    workload: str,
    found: Sequence[tuple[Shown, Value]],
    what: Callable[[str], str],
    is_better: str,
    numbers: dict[str, int],
) -> Plot:
    chosen, values = [one for one, _ in found], [value for _, value in found]
    unit = str(chosen[0].line.first.get("items_unit") or "item")
    labels = labels_of(chosen)

    def paint(axes: Axes) -> None:
        dots(
            axes,
            values=values,
            labels=labels,
            numbers=[numbers[one.device] for one in chosen],
            is_hollow=[one.mode != "real" for one in chosen],
        )
        label_below(axes, f"{what(unit)}; {is_better}")

    told = "; ".join(
        f"{label}: {in_words(value)}" for label, value in zip(labels, values, strict=True)
    )
    return draw(
        name,
        title=workload,
        description=f"{what(unit)} ({is_better}). {told}.",
        plot_inches=ROW_INCHES * len(chosen) + 0.1,
        left_inches=label_inches(labels),
        paint=paint,
    )


def in_figures(value: Value, *, unit: str) -> str:
    """'12.3 J [12.1, 12.5]'."""
    middle, low, high = value
    told = f"{format_number(middle)} {unit}".rstrip()
    if low is None or high is None:
        return told
    return f"{told} [{format_number(low)}, {format_number(high)}]"


def in_words(value: Value) -> str:
    """'12.3 (12.1 to 12.5)'."""
    middle, low, high = value
    told = format_number(middle)
    if low is None or high is None:
        return told
    return f"{told} ({format_number(low)} to {format_number(high)})"
