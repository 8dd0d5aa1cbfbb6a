"""What `bench project` shows: intervals on absent chips, and the score of the method.

Every title says "projected"; what was measured stands beside it in columns that say so.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.projection.measured import BOUND, LeftOut
from bench.analysis.projection.projected import NotProjected, Projected
from bench.analysis.projection.sampling import Estimate
from bench.analysis.projection.scoring import Scored, Summary
from bench.report.tables.cells import (
    AnyCell,
    Cell,
    Scale,
    bare,
    count,
    figure,
    of,
    quantity,
    seconds,
    share,
    text_of,
)
from bench.report.tables.grid import Grid

TARGETS = "targets: median error at most 15 %, at least 75 % inside, median width at most x1.8"
_MEANT = "projected figures are middles with an interval that is meant to hold four times in five"


def interval(value: Estimate, scale: Scale) -> AnyCell:
    """'15.1 ms [12.3, 19]'."""
    return quantity(value.mid, scale, ends=(value.low, value.high))


def projected_grid(found: Sequence[Projected]) -> Grid:
    """One line for each configuration that was measured and each chip."""
    rows = [
        (
            f"{one.measured.workload} {one.measured.size}".strip(),
            one.measured.device,
            quantity(one.measured.step_s, seconds),
            quantity(one.measured.throughput_per_s, of(f"{one.measured.items_unit}/s")),
            count(one.measured.num_trials),
            one.chip.id if one.devices == 1 else f"{one.devices} x {one.chip.id}",
            one.dtype,
            count(one.batch),
            interval(one.time_s, seconds),
            interval(one.throughput_per_s, of(f"{one.measured.items_unit}/s")),
            one.binds,
            ", ".join(f"{name} {100 * part:.0f} %" for name, part in one.shares.items()),
        )
        for one in found
    ]
    return Grid(
        heads=("workload", "from", "measured step", "measured speed", "trials", "projected to",
               "dtype", "batch", "step", "speed", "binds", "time rests on"),
        rows=rows,
        title="Projected",
        notes=(_MEANT, *_limited_lines(found), *_lines(found)),
        names=("from", "dtype", "binds"),
        spare=("time rests on", "measured speed", "trials", "batch"),
    )  # fmt: skip


def _limited_lines(found: Sequence[Projected]) -> list[str]:
    """What the same device did with less of it, and what that is good for; none without."""
    starts = {id(one.measured): one.measured for one in found}.values()
    lines = [
        f"measured on {start.device}, {one.limit}: {start.workload} "
        f"{text_of(figure(one.throughput_per_s, of(f'{start.items_unit}/s')))} "
        f"({one.throughput_per_s.num} trials)"
        for start in starts
        for one in start.limited
    ]
    return [*lines, BOUND] if lines else []


def _lines(found: Sequence[Projected]) -> list[str]:
    """What intervals rest on, with the chips that it concerns, and what would narrow the widest."""
    chips = list(dict.fromkeys(one.chip.id for one in found))
    concerned: dict[str, list[str]] = {}
    for one in found:
        basis = "; ".join(f"{name}: {words}" for name, words in one.basis.items() if words)
        for note in (*one.notes, basis):
            if one.chip.id not in concerned.setdefault(note, []):
                concerned[note].append(one.chip.id)
    concerned.pop("", None)
    lines = [
        note if those == chips and len(chips) > 1 else f"{', '.join(those)}: {note}"
        for note, those in concerned.items()
    ]
    for chip in chips:
        wide = max((one for one in found if one.chip.id == chip), key=lambda one: one.time_s.width)
        if wide.narrowing:
            told = "; ".join(wide.narrowing)
            lines.append(f"{chip}: what would narrow {wide.measured.workload}: {told}")
    return lines


def refusal_lines(refused: Sequence[NotProjected], left_out: Sequence[LeftOut]) -> list[str]:
    """One line for each reason why there is no figure."""
    reasons: dict[str, dict[str, None]] = {}
    for one in refused:
        told = reasons.setdefault(f"not projected to {one.chip.id}: {one.reason}", {})
        told[one.measured.workload] = None
    for lost in left_out:
        reasons.setdefault(f"no start for a projection: {lost.reason}", {})[lost.workload] = None
    return [f"{', '.join(workloads)}: {reason}" for reason, workloads in reasons.items()]


def score_grids(scored: Sequence[Scored], summaries: Sequence[Summary]) -> list[Grid]:
    """Whole table of points, the misses with their reasons, and what they sum up to."""
    points = [
        (
            *_point(one),
            one.point.kind,
            count(one.point.num_devices),
            "mix" if one.by_mix else "roofs",
            quantity(one.point.ratio),
            "none" if one.projected is None else interval(one.projected, bare),
            _error(one),
            "none" if one.projected is None else "inside" if one.is_inside else "MISS",
        )
        for one in scored
    ]
    missed = [(*_point(one), one.reason, one.point.note) for one in scored if not one.is_inside]
    return [
        Grid(
            heads=("net", "a -> b", "kind", "devices", "by", "published b/a", "projected b/a",
                   "error", ""),
            rows=points,
            title="Projected against published: throughput of b over a",
            spare=("by", "kind"),
        ),
        Grid(heads=("net", "a -> b", "reason", "note of the file"), rows=missed, title="Misses"),
        _summary_grid(summaries),
    ]  # fmt: skip


def _point(one: Scored) -> tuple[str, str]:
    point = one.point
    return f"{point.net} {point.phase}", f"{point.chip_a.id} -> {point.chip_b.id}"


def _error(one: Scored) -> AnyCell:
    return "" if one.error is None else Cell(text=f"{100 * one.error:+.0f} %", key=one.error)


def _summary_grid(summaries: Sequence[Summary]) -> Grid:
    rows = [
        (
            one.name,
            count(one.num_points),
            share(one.median_error_frac),
            share(one.inside_frac),
            quantity(one.median_width, prefix="x"),
        )
        for one in summaries
    ]
    return Grid(
        heads=("projected", "points", "median error of the middle", "inside", "median width"),
        rows=rows,
        title="Score",
        notes=(
            TARGETS,
            "ratios of several devices are projected as ratios of one; all in a 16-bit dtype",
            "nothing is fitted to such a file: peaks and derates of the catalogue, operators from "
            "shapes",
        ),
    )
