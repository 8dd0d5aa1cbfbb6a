"""What wins time back: workarounds on a narrow link, and more devices."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.links import LinkRun
from bench.analysis.remedies import Remedy
from bench.analysis.scaling import efficiency, single_runs
from bench.core.units import format_duration
from bench.report.page.content import without_blank_columns
from bench.report.tables.grid import Grid
from bench.report.tables.links_cells import AGAINST, WHO, bracket, efficiency_text, ms, trials, who
from bench.report.tables.quantities import change, figure, rate, share
from bench.report.tables.run_table import remedies_of


def remedy_grid(found: Sequence[Remedy], *, name: str) -> Grid:
    """Time with each workaround against without, and what it recovers of the slowdown."""
    rows = [
        (
            *who(one.run),
            change(one.change),
            _recovered(one),
            trials(one.run),
        )
        for one in found
    ]
    heads = (*WHO, "time/item against without [95 %]>", "slowdown recovered [95 %]>", "trials")
    notes = (
        "recovered: share of the time that this link costs over the fastest one, both without the "
        "workaround, which is gone with it",
        "time only: what it does to learning needs real ranks",
    )
    return without_blank_columns(
        Grid(heads=heads, rows=rows, title=f"Workarounds: {name}", notes=notes)
    )


def _recovered(one: Remedy) -> str:
    if one.recovered is None:
        return one.why_not
    told = share(one.recovered.share)
    if one.recovered.low is None or one.recovered.high is None:
        return told
    low, high = (f"{end * 100.0:.3g}" for end in (one.recovered.low, one.recovered.high))
    return f"{told} [{low}, {high}]"


def scaling_grid(
    found: Sequence[Sequence[LinkRun]], *, group: Sequence[LinkRun], name: str
) -> Grid:
    """Speed and efficiency of each family over its numbers of devices."""
    singles = single_runs(group)
    in_families = {id(run) for family in found for run in family}
    # One device of another mode is shown, and nothing is divided by it.
    beside = [run for run in group if not run.is_wide and id(run) not in in_families]
    rows, efficiencies = [], []
    for family in [*([[run] for run in beside] if found else []), *found]:
        for run in family:
            reached = efficiency(run, singles=singles)
            efficiencies.append(reached)
            link, mode, devices, layout, remedies = who(run)
            rows.append(
                (
                    family[-1].link,
                    mode,
                    remedies_of(family[-1].first) if run.num_devices == 1 else remedies,
                    devices,
                    layout,
                    figure(run.step_s, format_duration),
                    bracket(run),
                    _speed(run),
                    efficiency_text(reached),
                    _exposed_share(run),
                    ms(run, "straggler_step_ms"),
                )
            )
    heads = ("link", "mode", "with", "devices>", "layout", "step [95 %]>", "bracket>",
             "all devices [95 %]>", "efficiency [95 %]>", "exposed share>",
             "with stragglers>")  # fmt: skip
    kinds = dict.fromkeys(one.against for one in efficiencies if one)
    notes = tuple(AGAINST[kind] for kind in kinds)
    return without_blank_columns(
        Grid(heads=heads, rows=rows, title=f"Scaling over devices: {name}", notes=notes)
    )


def _speed(run: LinkRun) -> str:
    return rate(run.estimate("throughput_per_s"), unit=str(run.first.get("items_unit") or "item"))


def _exposed_share(run: LinkRun) -> str:
    over = run.estimate("comm_exposed_ms", over="step_median_ms")
    return "" if over is None else share(over.value)
