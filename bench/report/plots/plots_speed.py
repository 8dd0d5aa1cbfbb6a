"""Panels of throughput, latency and energy: one per workload, one line per configuration.

Dots are geometric means over usable trials with their 95 % interval over trials; a configuration
with one trial has a dot alone. Hollow dots are not real measurements of that device (simulated,
emulated, throttled), and their labels say which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.titles import LONG, differing, title_of
from bench.report.page.content import Plots
from bench.report.plots.kinds import Axis, Mark, interval, is_drawable, not_drawn
from bench.report.plots.panel import Value, short

MAX_PANELS = 6
MAX_LINES = 12


def throughput_plots(shown: Sequence[Trials]) -> Plots | None:
    """Items per second by device, a panel per workload."""
    return _panels(
        shown,
        name="throughput",
        what=lambda unit: f"{unit}/s; more is faster",
        value=lambda one: _mean(one, "throughput_per_s"),
    )


def energy_plots(shown: Sequence[Trials]) -> Plots | None:
    """Energy per item by device, a panel per workload."""
    return _panels(
        shown,
        name="energy",
        what=lambda unit: f"J/{unit}; less is better",
        value=lambda one: _mean(one, "energy_per_item_j"),
    )


def step_plots(shown: Sequence[Trials]) -> Plots | None:
    """Median step with its 5th to 95th percentile, a panel per workload."""
    return _panels(
        shown,
        name="steps",
        what=lambda _: "ms a step, 5th to 95th percentile; less is faster",
        value=_step_range,
    )


def _mean(shown: Trials, column: str) -> Value | None:
    found = shown.estimate(column)
    return None if found is None else (found.value, *(found.interval or (None, None)))


def _step_range(shown: Trials) -> Value | None:
    middle, low, high = (
        shown.mean(name) for name in ("step_median_ms", "step_p05_ms", "step_p95_ms")
    )
    return None if middle is None else (middle, low, high)


def _panels(
    shown: Sequence[Trials],
    *,
    name: str,
    what: Callable[[str], str],
    value: Callable[[Trials], Value | None],
) -> Plots | None:
    """Configurations of one device and no modelled link, unless there is nothing else."""
    known = [
        (one, found) for one in shown if (found := value(one)) is not None and is_drawable(*found)
    ]
    by_workload: dict[str, list[tuple[Trials, Value]]] = {}
    for one, found in [pair for pair in known if not pair[0].is_wide] or known:
        by_workload.setdefault(str(one.first["workload"]), []).append((one, found))
    if not by_workload:
        return None
    numbers = {device: n for n, device in enumerate(dict.fromkeys(one.device for one in shown))}
    chosen = {key: found[:MAX_LINES] for key, found in list(by_workload.items())[:MAX_PANELS]}
    panels = []
    for workload, pairs in chosen.items():
        unit = str(pairs[0][0].first.get("items_unit") or "item")
        told = what(unit)
        labels = labels_of([one for one, _ in pairs])
        marks = [
            Mark(label=label, value=drawn, series=numbers[one.device], is_hollow=one.mode != "real")
            for (one, drawn), label in zip(pairs, labels, strict=True)
        ]
        axis = Axis(label=told)
        panels.append(
            interval(f"{name} {workload}", title=workload, what=told, marks=marks, axis=axis)
        )
    num_drawn, num_all = (sum(map(len, part.values())) for part in (chosen, by_workload))
    return Plots(panels=tuple(panels), note=not_drawn(num_drawn, of=num_all))


def labels_of(shown: Sequence[Trials]) -> list[str]:
    """What tells configurations of one workload apart, and no more than that."""
    params = (*LONG, *differing(one.first for one in shown))
    titles = [title_of(one.first, shown=params).split(" ") for one in shown]
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
