"""What `bench project --size-for` shows: chips that would meet a target, and those that would not.

Every title says "projected" and what it started from: a patch at tiny is not one at base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.analysis.projection.measured import Start
from bench.analysis.projection.roofs import Unknown
from bench.analysis.projection.sizing import Choice, Target, undecided
from bench.core.units import format_duration, format_number
from bench.hardware.export_rules import VERDICT_WORDS
from bench.report.tables.cells import AnyCell, of, plain_unit, quantity, seconds
from bench.report.tables.grid import Grid
from bench.report.tables.project_tables import interval


def size_grid(
    target: Target,
    choices: Sequence[Choice],
    *,
    start: Start,
    others: Sequence[Start],
) -> Grid:
    """Chips that meet a target, fewest first; `others` are what it might have started from."""
    unit = f"{start.items_unit or 'item'}/s"
    speed: dict[str, Callable[[Choice], AnyCell]] = (
        {unit: lambda one: interval(one.projected.throughput_per_s, of(""))}
        if target.item_s is None
        else {"step": lambda one: interval(one.projected.time_s, seconds)}
    )
    names = dict.fromkeys(
        f"{one.size} {one.dtype} b{one.batch} on {one.device}".strip() for one in others
    )
    lead = "started from the fastest that was measured; the others"
    return Grid.of(
        choices,
        {
            "projected to": lambda one: one.projected.chip.id,
            "devices": lambda one: quantity(one.num_devices),
            "range": lambda one: (
                f"{one.devices[0]} to {one.devices[2]}" if one.devices else "slow end misses it"
            ),
            "link": lambda one: one.projected.link or "",
            **speed,
            "nominal power": lambda one: quantity(one.watts, plain_unit("W")),
            "export rules": _export,
        },
        title=f"Projected: what would meet {describe(target, start)}, from {start.device}",
        notes=(
            *([f"{lead}: {', '.join(names)}"] if names else []),
            "sorted by devices in the middle of the interval, then nominal watts",
            *undecided(choices),
        ),
        spare=("nominal power", "link"),
    )


def _export(one: Choice) -> str:
    caught = one.restricted_by
    reported = VERDICT_WORDS[None if caught is None else bool(caught)]
    return f"{reported}: {', '.join(caught)}" if caught else reported


def describe(target: Target, start: Start) -> str:
    """Say the target in words, with the size and type that it is projected from."""
    name = " ".join(part for part in (target.workload, start.size, start.dtype) if part)
    if target.item_s is not None:
        return f"{name} within {format_duration(target.item_s)}"
    return f"{name} at {format_number(target.items_per_s or 0.0)} {target.unit or 'items'}/s"


def missed_lines(missed: Sequence[Unknown]) -> list[str]:
    """One line for each reason why chips would not do, or why it is not known."""
    reasons: dict[str, list[str]] = {}
    for one in missed:
        reasons.setdefault(one.reason, []).append(one.chip)
    return [f"{', '.join(chips)}: {reason}" for reason, chips in reasons.items()]
