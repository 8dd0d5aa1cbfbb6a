"""What `bench compare` shows: one table of ratios with verdicts, and what to know beside it.

Two files give a row per configuration, more give a matrix with a column per file. Rows that matter
come first. Emulated, throttled and simulated rows carry their mode and link in the name.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count

from bench.analysis.comparison.comparison import Compared, Comparison, Mean
from bench.analysis.comparison.verdicts import VERDICTS, WINDOW_TIME
from bench.analysis.trials.configuration import PLACE, Trials, grouped
from bench.analysis.trials.titles import LAID_OUT, PROGRAM, differing
from bench.core.units import counted
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell, Cell
from bench.report.tables.grid import Grid, markdown, markdown_cell

MAX_SHOWN = 200
"""Rows of a terminal or GitHub table; further ones are counted, and are in --json."""
URGENCY = {word: place for place, word in enumerate((*VERDICTS, ""))}
"""Verdicts in the order in which they matter; '' is a ratio that gates nothing."""


def _apart(rows: Iterable[Compared]) -> list[str]:
    """Columns and parameters in which rows of a workload differ, and so must be shown."""
    columns = (*PROGRAM, *(name for name in LAID_OUT if name not in ("mode", "link")))
    return differing((row.a.trials.first for row in rows), columns=columns)


def _scale(comparison: Comparison) -> cells.Scale:
    unit = comparison.metric.unit
    return {"s": cells.seconds, "bytes": cells.num_bytes}.get(unit) or cells.of(unit)


def _note(row: Compared) -> str:
    source = row.source if row.source == WINDOW_TIME else ""
    more = ""
    if row.verdict == "INCONCLUSIVE":
        more = "the ratio lies at the threshold"
        if row.more_trials is not None:
            more = f"about {row.more_trials} more trial" + ("" if row.more_trials == 1 else "s")
    return "; ".join(text for text in (row.reason, more, source) if text)


def _figure(rows: Iterable[Compared]) -> list[str]:
    """What A and B show; rows judged by the window say so themselves."""
    sources = sorted({row.source for row in rows if row.source} - {WINDOW_TIME})
    return [f"shown of A and B: {', '.join(sources)}"] if sources else []


def _sorted(rows: Iterable[Compared]) -> list[Compared]:
    return sorted(rows, key=lambda row: (URGENCY[row.verdict], -abs((row.ratio or 1.0) - 1.0)))


def _ratio(row: Compared) -> AnyCell:
    return cells.change(row.ratio, ends=cells.ends_of(row.low, row.high))


def pair_grid(
    comparison: Comparison, *, is_cross_hardware: bool, limit: int | None = MAX_SHOWN
) -> Grid:
    """One row per configuration of two files, which ran on the same or on different devices."""
    rows = [row for row in comparison.rows if row.is_cross_hardware == is_cross_hardware]
    rows = rows if is_cross_hardware else _sorted(rows)
    shown, scale = _apart(rows), _scale(comparison)
    device = "device A" if is_cross_hardware else "device"
    columns: dict[str, Callable[[Compared], AnyCell]] = {
        "workload": lambda row: cells.title_cell(row.a.trials.first, shown=shown),
        device: lambda row: row.a.trials.one_device if is_cross_hardware else _machines(row),
        "device B": lambda row: row.b.trials.one_device,
        "A": lambda row: cells.quantity(row.a.value, scale) or "not measured",
        "B": lambda row: cells.quantity(row.b.value, scale) or "not measured",
        f"{comparison.metric.name} B/A [95 %]": _ratio,
        "throughput": lambda row: cells.change(row.throughput_ratio),
        "items/J B/A": lambda row: cells.quantity(
            row.energy_ratio and 1.0 / row.energy_ratio, prefix="x"
        ),
        "of roof A": lambda row: cells.share(row.a.roof_frac),
        "of roof B": lambda row: cells.share(row.b.roof_frac),
        "trials": lambda row: f"{row.a.num}, {row.b.num}",
        "threshold": lambda row: cells.share(row.threshold_frac),
        "verdict": lambda row: Cell(word=row.verdict or "ratio only"),
        "note": lambda row: _note(row) if row.verdict else "",
    }
    grid = Grid.of(
        rows[:limit],
        columns,
        title="Different devices" if is_cross_hardware else "",
        notes=(
            f"A: {comparison.labels[0]}, B: {comparison.labels[1]}",
            *_figure(rows),
            *_cut(len(rows), limit),
        ),
        names=(device, "device B", "threshold", "trials"),
        spare=("throughput", "of roof A", "of roof B", "threshold", "items/J B/A", "trials"),
    )
    beside = ("device B", "items/J B/A", "of roof A", "of roof B")
    return grid.without(("throughput",) if is_cross_hardware else beside)


def matrix_grid(comparison: Comparison, *, limit: int | None = MAX_SHOWN) -> Grid:
    """One row per configuration, one column per file after the first; cells are ratios to it."""
    shown, scale = _apart(comparison.rows), _scale(comparison)
    lines: dict[tuple[Trials, int], dict[str, Compared]] = {}
    for row in comparison.rows:
        # Several machines of one file take a line each.
        places = ((row.a.trials, number) for number in count())
        place = next(place for place in places if row.b.file not in lines.get(place, ()))
        lines.setdefault(place, {})[row.b.file] = row
    first, *files = comparison.labels
    rows = []
    for (trials, _), line in list(lines.items())[:limit]:
        a = next(iter(line.values())).a
        title, value = cells.title_cell(trials.first, shown=shown), cells.quantity(a.value, scale)
        ratios = (_matrix_cell(line[file]) if file in line else "" for file in files)
        rows.append((title, trials.one_device, value, *ratios))
    heads = ("workload", "device", first, *files)
    return Grid(heads=heads, rows=rows, notes=_cut(len(lines), limit), names=("device",))


def _matrix_cell(row: Compared) -> Cell:
    found = _ratio(row) or Cell()
    assert isinstance(found, Cell)
    named = row.is_cross_hardware or row.b.machine
    device = f"{row.b.trials.one_device}:" if named else ""
    aside = " ".join(part for part in (found.aside, device, _note(row)) if part)
    return replace(found, aside=aside, word=row.verdict or "ratio only")


def _machines(row: Compared) -> str:
    """The device of both sides, with their machines where a file has several."""
    a, b = row.a.trials, row.b.trials
    if all(a.text(name) == b.text(name) for name in PLACE):
        return (a if a.machine else b).one_device
    return f"{a.one_device} -> {b.machine}" if b.machine else a.one_device


def _cut(num: int, limit: int | None) -> tuple[str, ...]:
    if limit is None or num <= limit:
        return ()
    return (f"{counted(num - limit, 'further row')} not shown; --json has all",)


def grids(comparison: Comparison, *, limit: int | None = MAX_SHOWN) -> list[Grid]:
    """Every table that this comparison needs."""
    if len(comparison.labels) > 2:
        return [matrix_grid(comparison, limit=limit)] if comparison.rows else []
    kinds = sorted({row.is_cross_hardware for row in comparison.rows})
    return [pair_grid(comparison, is_cross_hardware=kind, limit=limit) for kind in kinds]


def summary(comparison: Comparison) -> str:
    """One line: how many of which verdict."""
    counts = Counter(row.verdict for row in comparison.rows)
    words = (f"{counts[word]} {word or 'ratio only'}" for word in URGENCY if counts[word])
    unmatched = f"; {len(comparison.unmatched)} not matched" if comparison.unmatched else ""
    return f"{', '.join(words) or 'nothing compared'}{unmatched}"


def _beside(comparison: Comparison) -> list[str]:
    """What a reader must know beside the ratios."""
    lines = [
        f"geometric mean {_between(mean)}({mean.file}): {cells.text_of(cells.change(mean.ratio))} "
        f"over {mean.num} matched valid configurations"
        for mean in comparison.means
        if mean.num > 1
    ]
    found = Counter(text for row in comparison.rows for text in row.confounders)
    hosts = sum(num for text, num in found.items() if text.startswith("host_hash "))
    shown = [(text, num) for text, num in found.items() if not text.startswith("host_hash ")]
    lines += [
        f"also differs: {text} ({counted(num, 'row')})" for text, num in shown[: MAX_SHOWN // 10]
    ]
    if hosts:
        lines.append(
            f"{counted(hosts, 'row')} of two different machines: take such verdicts as advice, and "
            "measure both in one job to gate on them"
        )
    return lines


def _between(mean: Mean) -> str:
    if mean.device_a == mean.device_b:
        return ""
    return f"{mean.phase} {mean.device_a} -> {mean.device_b} ".lstrip()


def _unmatched(comparison: Comparison) -> list[str]:
    """Groups without a counterpart: one line for each reason."""
    found = grouped(comparison.unmatched, lambda one: f"only in {one.file}: {one.reason}")
    lines = [
        f"not compared: {', '.join(one.name for one in those[:MAX_SHOWN])} {why}"
        for why, those in found.items()
    ]
    hidden = len(lines) - MAX_SHOWN
    return lines if hidden <= 0 else [*lines[:MAX_SHOWN], f"not compared: and {hidden} more"]


def lines(comparison: Comparison) -> list[str]:
    """Everything that is said below the tables."""
    return [summary(comparison), *_beside(comparison), *_unmatched(comparison)]


def github(comparison: Comparison) -> str:
    """A job summary: verdict first, what needs attention open, everything else folded away."""
    urgent = [row for row in comparison.rows if row.verdict in ("REGRESSION", "INCONCLUSIVE")]
    reported = [f"## bench compare ({comparison.metric.name}): {summary(comparison)}", ""]
    for row in _sorted(urgent)[: MAX_SHOWN // 10]:
        title = cells.text_of(cells.title_cell(row.a.trials.first, shown=("size", "dtype")))
        line = f"{row.verdict}: {title} {cells.text_of(_ratio(row))} {_note(row)}"
        reported.append(markdown_cell(line.rstrip()) + "  ")
    details = markdown(grids(comparison), lines=lines(comparison))
    return "\n".join(
        [*reported, "<details><summary>All rows</summary>", "", details, "", "</details>", ""]
    )
