"""What `bench project` shows: intervals on absent chips, and the score of the method.

Every title says "projected"; the few figures that were measured say so in their line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.analysis.projection import NotProjected, Projected
from bench.analysis.projection_limited import BOUND
from bench.analysis.projection_rows import LeftOut, Measured
from bench.analysis.projection_sampling import Estimate
from bench.analysis.scoring import Scored, Summary
from bench.core.units import format_duration, format_number
from bench.report.tables.grid import Grid
from bench.report.tables.quantities import rate

TARGETS = "targets: median error at most 15 %, at least 75 % inside, median width at most x1.8"


def interval(value: Estimate, form: Callable[[float], str] = format_number) -> str:
    """'12.3 ms .. 15.1 ms .. 19 ms': low, middle, high."""
    return " .. ".join(form(part) for part in (value.low, value.mid, value.high))


def projected_grids(found: Sequence[Projected]) -> list[Grid]:
    """One table for each configuration that was measured."""
    grids = []
    for key in dict.fromkeys((one.measured.config_hash, one.measured.device) for one in found):
        alike = [one for one in found if (one.measured.config_hash, one.measured.device) == key]
        grids.append(_projected_grid(alike))
    return grids


def _projected_grid(found: Sequence[Projected]) -> Grid:
    start = found[0].measured
    rows = [
        (
            one.chip.id if one.devices == 1 else f"{one.devices} x {one.chip.id}",
            one.dtype,
            str(one.batch),
            interval(one.time_s, format_duration),
            interval(one.throughput_per_s),
            one.binds,
            " ".join(f"{name} {100 * share:.0f} %" for name, share in one.shares.items()),
        )
        for one in found
    ]
    measured = (
        f"measured: {format_duration(start.step_s)} a step, "
        f"{format_number(start.throughput_per_s)} {start.items_unit}/s on {start.device} "
        f"({_trials(start.num_trials)})"
    )
    return Grid(
        heads=("projected to", "dtype", "batch>", "step: low .. mid .. high",
               f"{start.items_unit}/s: low .. mid .. high", "binds", "time rests on"),
        rows=rows,
        title=f"Projected: {start.workload} {start.size} {start.dtype}, from {start.device}",
        notes=(measured, *_limited_lines(start),
               "an interval is meant to hold four times in five", *_lines(found)),
    )  # fmt: skip


def _limited_lines(start: Measured) -> list[str]:
    """What the same device did with less of it, and what that is good for; none without."""
    lines = []
    for one in start.limited:
        told = one.throughput_per_s
        figure = rate(told, unit=start.items_unit)
        lines.append(f"measured on {start.device}, {one.limit}: {figure} ({_trials(told.num)})")
    return [*lines, BOUND] if lines else []


def _trials(num: int) -> str:
    return "1 trial" if num == 1 else f"{num} trials"


def _lines(found: Sequence[Projected]) -> list[str]:
    lines = []
    for one in found:
        basis = "; ".join(f"{name}: {words}" for name, words in one.basis.items() if words)
        lines.append(f"{one.chip.id}: {'; '.join(one.notes)}. {basis}")
        if one.narrowing:
            lines.append(f"{one.chip.id}: what would narrow it: {'; '.join(one.narrowing)}")
    return lines


def refusal_lines(refused: Sequence[NotProjected], left_out: Sequence[LeftOut]) -> list[str]:
    """One line for each chip without a figure, and for each row that is no start."""
    lines = [
        f"{one.measured.workload} is not projected to {one.chip.id}: {one.reason}"
        for one in refused
    ]
    return lines + [
        f"{one.workload} is no start for a projection: {one.reason}" for one in left_out
    ]


def score_grids(scored: Sequence[Scored], summaries: Sequence[Summary]) -> list[Grid]:
    """Whole table of points, the misses with their reasons, and what they sum up to."""
    points = [
        (
            f"{one.point.chip_a.id} -> {one.point.chip_b.id}",
            f"{one.point.net} {one.point.phase}",
            one.point.kind,
            str(one.point.num_devices),
            "mix" if one.by_mix else "roofs",
            f"{one.point.ratio:.3g}",
            *_parts(one.projected),
            "" if one.error is None else f"{100 * one.error:+.0f} %",
            "none" if one.projected is None else "inside" if one.is_inside else "MISS",
        )
        for one in scored
    ]
    heads = ("a -> b", "net", "kind", "n>", "by", "b/a>", "low>", "mid>", "high>", "error>", "")
    missed = [
        (
            f"{one.point.chip_a.id} -> {one.point.chip_b.id}",
            f"{one.point.net} {one.point.phase}",
            f"{one.point.ratio:.3g}",
            "" if one.projected is None else f"{one.projected.low:.3g} .. {one.projected.high:.3g}",
            one.reason,
            one.point.note,
        )
        for one in scored
        if not one.is_inside
    ]
    return [
        Grid(
            heads=heads,
            rows=points,
            title="Projected against published: throughput of b over a",
            notes=("b/a is published; low, mid and high are projected; n: devices",),
        ),
        Grid(
            heads=("chips", "net", "published>", "projected", "reason", "note of the file"),
            rows=missed,
            title="Misses",
        ),
        _summary_grid(summaries),
    ]


def _parts(one: Estimate | None) -> tuple[str, str, str]:
    if one is None:
        return "", "", ""
    return f"{one.low:.3g}", f"{one.mid:.3g}", f"{one.high:.3g}"


def _summary_grid(summaries: Sequence[Summary]) -> Grid:
    rows = [
        (
            one.name,
            str(one.num_points),
            f"{100 * one.median_error_frac:.1f} %",
            f"{100 * one.inside_frac:.0f} %",
            f"x{one.median_width:.2f}",
        )
        for one in summaries
    ]
    return Grid(
        heads=("projected", "points>", "median error of the middle>", "inside>", "median width>"),
        rows=rows,
        title="Score",
        notes=(
            TARGETS,
            "ratios of several devices are projected as ratios of one; all in a 16-bit dtype",
            "nothing is fitted to such a file: peaks and derates of the catalogue, "
               "operators from shapes"),
    )  # fmt: skip
