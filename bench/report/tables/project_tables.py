"""What `bench project` shows: intervals on absent chips, chips for a target, and the score.

Every title says "projected" and what it started from; what was measured stands beside it in columns
that say so.
"""

from collections.abc import Callable, Sequence

from bench.analysis.projection.measured import BOUND, Start
from bench.analysis.projection.projected import Projected
from bench.analysis.projection.roofs import Estimate, Unknown
from bench.analysis.projection.scoring import Scored, Summary
from bench.analysis.projection.sizing import STEPS, Choice, Target, undecided
from bench.core.units import PERIOD_S, counted, in_unit_of
from bench.hardware.query import VERDICT_WORDS
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell, Cell
from bench.report.tables.grid import Grid
from bench.report.tables.served_table import OWN_TIME

TARGETS = "targets: median error at most 9 %, at least 80 % inside, median width at most x1.6"
MEANT = "brackets: an 80 % interval, meant to hold four times in five; before them its middle"
_RESTS = {"matrix": "products", "memory": "copies", "on chip": "work on the chip", "launch": "host"}
"""Words for what time rests on."""


def interval(value: Estimate, scale: cells.Scale) -> AnyCell:
    """'15.1 ms [12.3, 19]'."""
    return cells.quantity(value.mid, scale, ends=(value.low, value.high))


def projected_grid(found: Sequence[Projected], *, steps: float | None = None) -> Grid:
    """One line for each configuration and chip; a training has its time for so many steps."""

    def whole(one: Projected) -> AnyCell:
        time_s = one.training_s(steps)
        return "" if time_s is None else interval(time_s, in_unit_of("1h"))

    named = counted(round(steps or 0), "step")
    batches = f"{named}: of the measured batch, however it is divided over batches and devices"
    columns: dict[str, Callable[[Projected], AnyCell]] = {
        "workload": lambda one: f"{one.measured.workload} {one.measured.size}".strip(),
        "from": lambda one: one.measured.device,
        "measured step": lambda one: cells.quantity(one.measured.step_s, cells.seconds),
        "measured speed": lambda one: cells.quantity(one.measured.throughput_per_s, _rate(one)),
        "trials": lambda one: cells.quantity(one.measured.num_trials),
        "projected to": lambda one: (
            one.chip.id if one.devices == 1 else f"{one.devices} x {one.chip.id}"
        ),
        "dtype": lambda one: one.dtype,
        "batch": lambda one: cells.quantity(one.batch),
        "step": lambda one: interval(one.time_s, cells.seconds),
        "speed": lambda one: interval(one.throughput_per_s, _rate(one)),
        named: whole,
        "binds": lambda one: one.binds,
        "time rests on": lambda one: ", ".join(
            f"{name} {100 * part:.0f} %" for name, part in one.shares.items()
        ),
    }
    return Grid.of(
        found,
        columns,
        title="Projected",
        notes=(MEANT, *([batches] if steps else []), *_limited_lines(found), *_lines(found)),
        names=("from", "dtype", "binds"),
        spare=("time rests on", "measured speed", "trials", "batch", "binds", "speed"),
    )


def _rate(one: Projected) -> cells.Scale:
    return cells.of(f"{one.measured.items_unit}/s")


def _limited_lines(found: Sequence[Projected]) -> list[str]:
    """What the same device did with less of it, and what that is good for; none without."""
    starts = {id(one.measured): (one.measured, _rate(one)) for one in found}.values()
    lines = [
        f"measured on {start.device}, {limit}: {start.workload} "
        f"{cells.text_of(cells.figure(rate, scale))} ({counted(rate.num, 'trial')})"
        for start, scale in starts
        for limit, rate in start.limited
    ]
    return [*lines, BOUND] if lines else []


def _lines(found: Sequence[Projected]) -> list[str]:
    """What intervals rest on, with the chips that it concerns; last what would narrow most."""
    chips = list(dict.fromkeys(one.chip.id for one in found))
    concerned: dict[str, list[str]] = {}
    for one in found:
        known = {_RESTS.get(name, name): words for name, words in one.basis.items() if words}
        basis = "; ".join(f"{name} {words}" for name, words in known.items())
        for note in (*one.notes, basis):
            if one.chip.id not in concerned.setdefault(note, []):
                concerned[note].append(one.chip.id)
    concerned.pop("", None)
    lines = [
        note if those == chips and len(chips) > 1 else f"{', '.join(those)}: {note}"
        for note, those in concerned.items()
    ]
    if explained := [one for one in found if one.narrowing]:
        wide = max(explained, key=lambda one: one.time_s.width)
        which = f"{wide.measured.workload} on {wide.chip.id}"
        lines.append(f"what would narrow it most: {wide.narrowing[0]}, {which}")
    return lines


def refusal_lines(refused: Sequence[Unknown], left_out: Sequence[Unknown]) -> list[str]:
    """One line for each reason why there is no figure."""
    pairs = [(f"not projected to {one.chip}: {one.reason}", one.workload) for one in refused]
    pairs += [(f"no start for a projection: {one.reason}", one.workload) for one in left_out]
    return _by_reason(pairs)


def size_grid(
    target: Target, choices: Sequence[Choice], *, start: Start, others: Sequence[Start]
) -> Grid:
    """Chips that meet a target, fewest first; `others` are what it might have started from."""
    answer, scale = _asked_for(target)
    asked = (target.workload, start.size, start.dtype, target.asked)
    rate = f"{start.items_unit}/{target.per}" if target.num_items is None else "in all"
    step = f"a step is {counted(round(start.items_per_step), start.items_unit)}, as measured"
    names = dict.fromkeys(
        f"{one.size} {one.dtype} b{one.batch} on {one.device}".strip() for one in others
    )
    lead = "started from the fastest that was measured; the others"
    dtypes = {one.projected.dtype for one in choices}
    by_dtype = f"dtype by dtype ({start.dtype} first), " if dtypes - {start.dtype} else ""
    return Grid.of(
        choices,
        {
            "projected to": lambda one: one.projected.chip.id,
            "dtype": lambda one: one.projected.dtype,
            "devices": lambda one: cells.quantity(one.projected.devices),
            "range": lambda one: (
                f"{one.devices[0]} to {one.devices[2]}" if one.devices else "slow end misses it"
            ),
            "link": lambda one: one.projected.link or "",
            "step" if target.item_s else rate: lambda one: interval(answer(one), scale),
            "nominal power": lambda one: cells.quantity(one.watts, cells.watts),
            "export rules": _export,
        },
        title=f"Projected: what would meet {' '.join(filter(None, asked))}, from {start.device}",
        notes=(
            *([f"{lead}: {', '.join(names)}"] if names else []),
            *([step] if target.unit in STEPS or target.limit_s else []),
            *(_waiting_lines(start, rate=rate) if target.limit_s else []),
            *filter(None, [start.recast]),
            f"sorted {by_dtype}by devices in the middle of the interval, then nominal watts",
            *undecided(choices),
        ),
        spare=("nominal power",),
    )


def _waiting_lines(start: Start, *, rate: str) -> list[str]:
    """What a number of devices rests on where items wait for one another."""
    assert start.times is not None
    return [
        f"{start.times.basis}; {OWN_TIME}",
        f"items come at random, first come first; services spread as on {start.device}",
        f"{rate}: in full use, when the limit holds no more",
    ]


def _asked_for(target: Target) -> tuple[Callable[[Choice], Estimate], cells.Scale]:
    """What a target is about: a step, the whole, or the rate, in the unit that was given."""
    if target.item_s is not None:
        return lambda one: one.projected.time_s, in_unit_of(target.per)
    if (num_items := target.num_items) is not None:
        in_unit = in_unit_of(target.per)
        return lambda one: one.projected.throughput_per_s.inverse(num_items), in_unit
    scale = cells.of("", period_s=PERIOD_S[target.per])
    return lambda one: one.projected.throughput_per_s, scale


def _export(one: Choice) -> str:
    caught = one.restricted_by
    reported = VERDICT_WORDS[None if caught is None else bool(caught)]
    return f"{reported}: {', '.join(caught)}" if caught else reported


def missed_lines(missed: Sequence[Unknown]) -> list[str]:
    """One line for each reason why chips would not do, or why it is not known."""
    return _by_reason([(one.reason, one.chip) for one in missed])


def _by_reason(pairs: Sequence[tuple[str, str]]) -> list[str]:
    reasons: dict[str, dict[str, None]] = {}
    for reason, name in pairs:
        reasons.setdefault(reason, {})[name] = None
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


def score_grids(scored: Sequence[Scored], summaries: Sequence[Summary]) -> list[Grid]:
    """Whole table of points, the misses with their reasons, and what they sum up to."""
    who: dict[str, Callable[[Scored], AnyCell]] = {
        "net": lambda one: f"{one.point.net} {one.point.phase}",
        "a -> b": lambda one: f"{one.point.chip_a} -> {one.point.chip_b}",
    }
    points: dict[str, Callable[[Scored], AnyCell]] = {
        "kind": lambda one: one.point.kind,
        "devices": lambda one: cells.quantity(one.point.num_devices),
        "dtypes": lambda one: one.point.dtypes,
        "by": lambda one: "mix" if one.by_mix else "roofs",
        "published b/a": lambda one: cells.quantity(one.ratio),
        "projected b/a": lambda one: (
            interval(one.projected, cells.bare) if one.projected else "none"
        ),
        "error": _error,
        "": lambda one: "none" if one.projected is None else "inside" if one.is_inside else "MISS",
    }
    misses: dict[str, Callable[[Scored], AnyCell]] = {
        "reason": lambda one: one.reason,
        "note of the file": lambda one: one.point.note,
    }
    title = "Projected against published: throughput of b over a"
    missed = [one for one in scored if not one.is_inside]
    grids = [Grid.of(scored, who | points, title=title, spare=("by", "kind"))]
    if missed:
        spare = ("note of the file",)
        grids.append(Grid.of(missed, who | misses, title="Misses", spare=spare))
    return [*grids, *([_summary_grid(summaries)] if summaries else [])]


def _error(one: Scored) -> AnyCell:
    return "" if one.error is None else Cell(text=f"{100 * one.error:+.0f} %", key=one.error)


def _summary_grid(summaries: Sequence[Summary]) -> Grid:
    return Grid.of(
        summaries,
        {
            "ratios": lambda one: one.name,
            "points": lambda one: cells.quantity(one.num_points),
            "median error of the middle": lambda one: cells.share(one.median_error_frac),
            "inside": lambda one: cells.share(one.inside_frac),
            "median width": lambda one: cells.quantity(one.median_width, prefix="x"),
        },
        title="Score",
        notes=(
            TARGETS,
            "in 16 bits and as one device, where the file does not tell dtypes, or step and links",
            "nothing is fitted to such a file: rates of the catalogue, operators from shapes",
        ),
    )
