"""What `bench compare` shows: one table of ratios with verdicts, and what to know beside it.

Two files give a row per configuration, more give a matrix with a column per file. Rows that matter
come first. Emulated, throttled and simulated rows carry their mode and link in the name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from bench.analysis.comparison.comparison import Compared, Comparison, Mean, Side
from bench.analysis.comparison.verdicts import VERDICTS
from bench.analysis.trials.titles import LAID_OUT, PROGRAM, differing
from bench.report.tables.cells import (
    AnyCell,
    Cell,
    Scale,
    change,
    ends_of,
    num_bytes,
    of,
    quantity,
    seconds,
    share,
    text_of,
    title_cell,
    verdict,
)
from bench.report.tables.grid import Grid, markdown, markdown_cell

MAX_SHOWN = 200
"""Rows of a terminal or GitHub table; further ones are counted, and are in --json."""
_SCALES: dict[str, Scale] = {"s": seconds, "bytes": num_bytes}
_ORDER = {verdict: place for place, verdict in enumerate((*VERDICTS, ""))}


def value_cell(value: float | None, *, unit: str) -> AnyCell:
    """A figure of a metric."""
    return quantity(value, _SCALES.get(unit) or of(unit))


def _apart(rows: Iterable[Compared]) -> list[str]:
    """Columns and parameters in which rows of a workload differ, and so must be shown."""
    columns = (*PROGRAM, *(name for name in LAID_OUT if name not in ("mode", "link")))
    return differing((row.a.trials.first for row in rows), columns=columns)


def _title(row: Compared, *, shown: Sequence[str]) -> AnyCell:
    return title_cell(row.a.trials.first, shown=shown)


def _note(row: Compared) -> str:
    if row.verdict != "INCONCLUSIVE":
        return row.reason
    more = "the ratio lies at the threshold"
    if row.more_trials is not None:
        more = f"about {row.more_trials} more trial" + ("" if row.more_trials == 1 else "s")
    return "; ".join(text for text in (row.reason, more) if text)


def _sorted(rows: Iterable[Compared]) -> list[Compared]:
    return sorted(rows, key=lambda row: (_ORDER[row.verdict], -abs((row.ratio or 1.0) - 1.0)))


def _value(side: Side, *, unit: str) -> AnyCell:
    return value_cell(side.value, unit=unit) or "not measured"


def _ratio(row: Compared) -> AnyCell:
    return change(row.ratio, ends=ends_of(row.low, row.high))


def pair_grid(
    comparison: Comparison, *, is_cross_hardware: bool, limit: int | None = MAX_SHOWN
) -> Grid:
    """One row per configuration of two files, which ran on the same or on different devices."""
    rows = [row for row in comparison.rows if row.is_cross_hardware == is_cross_hardware]
    rows = rows if is_cross_hardware else _sorted(rows)
    shown, unit = _apart(rows), comparison.metric.unit
    device = "device A" if is_cross_hardware else "device"
    beside: dict[str, Callable[[Compared], AnyCell]] = {
        "items/J B/A": lambda row: quantity(
            row.energy_ratio and 1.0 / row.energy_ratio, prefix="x"
        ),
        "of roof A": lambda row: share(row.a.roof_frac),
        "of roof B": lambda row: share(row.b.roof_frac),
    }
    columns: dict[str, Callable[[Compared], AnyCell]] = {
        "workload": lambda row: _title(row, shown=shown),
        device: lambda row: row.a.device,
        **({"device B": lambda row: row.b.device} if is_cross_hardware else {}),
        "A": lambda row: _value(row.a, unit=unit),
        "B": lambda row: _value(row.b, unit=unit),
        f"{comparison.metric.name} B/A [95 %]": _ratio,
        **(
            beside
            if is_cross_hardware
            else {"throughput": lambda row: change(row.throughput_ratio)}
        ),
        "trials": lambda row: f"{row.a.num}, {row.b.num}",
        "threshold": lambda row: share(row.threshold_frac),
        "verdict": lambda row: verdict(row.verdict) if row.verdict else "ratio only",
        "note": lambda row: _note(row) if row.verdict else "",
    }
    return Grid.of(
        rows[:limit],
        columns,
        title="Different devices" if is_cross_hardware else "",
        notes=(
            f"A: {comparison.labels[0]}, B: {comparison.labels[1]}",
            *_cut(len(rows), limit),
        ),
        names=(device, "device B", "threshold", "trials"),
        spare=("throughput", "of roof A", "of roof B", "threshold", "items/J B/A", "trials"),
    )


def matrix_grid(comparison: Comparison, *, limit: int | None = MAX_SHOWN) -> Grid:
    """One row per configuration, one column per file after the first; cells are ratios to it."""
    shown = _apart(comparison.rows)
    lines: dict[tuple[AnyCell, str, str, float | None], dict[str, AnyCell]] = {}
    for row in comparison.rows:
        title = _title(row, shown=shown)
        line = lines.setdefault((title, row.a.device, row.config_hash, row.a.value), {})
        device = f"{row.b.device}:" if row.is_cross_hardware else ""
        found = _ratio(row)
        aside = " ".join(part for part in (getattr(found, "aside", ""), device, _note(row)) if part)
        word = row.verdict or "ratio only"
        line[row.b.file] = (
            replace(found, aside=aside, word=word)
            if isinstance(found, Cell)
            else Cell(text=aside, word=word)
        )
    files = comparison.labels[1:]
    cells = [
        (title, device, value_cell(value, unit=comparison.metric.unit),
         *(line.get(file, "") for file in files))
        for (title, device, _, value), line in list(lines.items())[:limit]
    ]  # fmt: skip
    heads = ("workload", "device", comparison.labels[0], *files)
    return Grid(heads=heads, rows=cells, notes=_cut(len(lines), limit), names=("device",))


def _cut(num: int, limit: int | None) -> tuple[str, ...]:
    if limit is None or num <= limit:
        return ()
    return (f"{num - limit} further rows are not shown; --json has them all",)


def grids(comparison: Comparison, *, limit: int | None = MAX_SHOWN) -> list[Grid]:
    """Every table that this comparison needs."""
    if len(comparison.labels) > 2:
        return [matrix_grid(comparison, limit=limit)] if comparison.rows else []
    kinds = [
        kind for kind in (False, True) if kind in {r.is_cross_hardware for r in comparison.rows}
    ]
    return [pair_grid(comparison, is_cross_hardware=kind, limit=limit) for kind in kinds]


def summary(comparison: Comparison) -> str:
    """One line: how many of which verdict."""
    counts = Counter(row.verdict or "ratio only" for row in comparison.rows)
    order = [*VERDICTS, "ratio only"]
    reported = ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])
    unmatched = f"; {len(comparison.unmatched)} not matched" if comparison.unmatched else ""
    return f"{reported or 'nothing compared'}{unmatched}"


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know beside the ratios."""
    lines = [
        f"geometric mean {_between(mean)}({mean.file}): {text_of(change(mean.ratio))} over "
        f"{mean.num} matched valid configurations"
        for mean in comparison.means
        if mean.num > 1
    ]
    differing = Counter(text for row in comparison.rows for text in row.confounders)
    hosts = sum(num for text, num in differing.items() if text.startswith("host_hash "))
    shown = [(text, num) for text, num in differing.items() if not text.startswith("host_hash ")]
    lines += [f"also differs: {text} ({num} rows)" for text, num in shown[: MAX_SHOWN // 10]]
    if hosts:
        lines.append(
            f"{hosts} rows come from two different machines: take their verdicts as advice, and "
            "measure both in one job to gate on them"
        )
    return lines


def _between(mean: Mean) -> str:
    if mean.device_a == mean.device_b:
        return ""
    return f"{mean.phase} {mean.device_a} -> {mean.device_b} ".lstrip()


def _unmatched(comparison: Comparison, *, limit: int = MAX_SHOWN) -> list[str]:
    """Groups without a counterpart: one line for each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in comparison.unmatched:
        found.setdefault((one.file, one.reason), []).append(one.name)
    lines = [
        f"{', '.join(names[:limit])} only in {file}: {reason}"
        for (file, reason), names in found.items()
    ]
    return lines[:limit] + [f"and {len(lines) - limit} more" for _ in [0] if len(lines) > limit]


def lines(comparison: Comparison) -> list[str]:
    """Everything that is said below the tables."""
    lost = [f"not compared: {line}" for line in _unmatched(comparison)]
    return [summary(comparison), *notes(comparison), *lost]


def github(comparison: Comparison) -> str:
    """A job summary: verdict first, what needs attention open, everything else folded away."""
    urgent = [row for row in comparison.rows if row.verdict in ("REGRESSION", "INCONCLUSIVE")]
    reported = [f"## bench compare ({comparison.metric.name}): {summary(comparison)}", ""]
    for row in _sorted(urgent)[: MAX_SHOWN // 10]:
        title = text_of(_title(row, shown=("size", "dtype")))
        line = f"{row.verdict}: {title} {text_of(_ratio(row))} {_note(row)}"
        reported.append(markdown_cell(line.rstrip()) + "  ")
    details = markdown(grids(comparison), lines=lines(comparison))
    return "\n".join(
        [*reported, "<details><summary>All rows</summary>", "", details, "", "</details>", ""]
    )
