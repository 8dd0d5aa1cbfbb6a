"""What `bench project --size-for` shows: chips that would meet a target, and those that would not.

Every title says "projected" and what it started from: a patch at tiny is not one at base.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.projection_rows import Measured
from bench.analysis.sizing import Choice, Missed, Target, undecided
from bench.core.units import format_duration, format_number
from bench.hardware.export_rules import VERDICT_WORDS
from bench.report.tables.grid import Grid
from bench.report.tables.project_tables import interval


def size_grid(
    target: Target, choices: Sequence[Choice], *, start: Measured, others: Sequence[Measured]
) -> Grid:
    """Chips that meet a target, fewest first; `others` are what it might have started from."""
    rows = [_size_row(target, one) for one in choices]
    figure = "step" if target.item_s is not None else "items/s"
    return Grid(
        heads=("projected to", "devices>", "range", "link", f"{figure}: low .. mid .. high",
               "nominal W>", "export rules"),
        rows=rows,
        title=f"Projected: what would meet {describe(target, start)}, from {start.device}",
        notes=(*_other_lines(others),
               "sorted by devices in the middle of the interval, then nominal watts",
               *undecided(choices)),
    )  # fmt: skip


def _other_lines(others: Sequence[Measured]) -> list[str]:
    if not others:
        return []
    names = dict.fromkeys(
        f"{one.size} {one.dtype} b{one.batch} on {one.device}".strip() for one in others
    )
    return [f"started from the fastest that was measured; the others: {', '.join(names)}"]


def _size_row(target: Target, one: Choice) -> tuple[str, ...]:
    told = one.projected
    figure = (
        interval(told.time_s, format_duration)
        if target.item_s is not None
        else interval(told.throughput_per_s)
    )
    caught = one.restricted_by
    export = VERDICT_WORDS[None if caught is None else bool(caught)]
    if caught:
        export = f"{export}: {', '.join(caught)}"
    spread = "slow end misses it"
    if one.devices is not None:
        spread = f"{one.devices[0]} to {one.devices[2]}"
    return (
        told.chip.id,
        str(one.num_devices),
        spread,
        told.link or "",
        figure,
        "" if one.watts is None else f"{one.watts:,.0f}",
        export,
    )


def describe(target: Target, start: Measured) -> str:
    """Say the target in words, with the size and type that it is projected from."""
    name = " ".join(part for part in (target.workload, start.size, start.dtype) if part)
    if target.item_s is not None:
        return f"{name} within {format_duration(target.item_s)}"
    return f"{name} at {format_number(target.items_per_s or 0.0)} {target.unit or 'items'}/s"


def missed_lines(missed: Sequence[Missed]) -> list[str]:
    """One line for each chip that would not do, or of which it cannot be told."""
    return [f"{one.chip.id}: {one.reason}" for one in missed]
