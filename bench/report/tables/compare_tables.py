"""What `bench compare` shows: one table of ratios with verdicts, and what to know beside it.

Two files give a row per configuration, more give a matrix with a column per file. Rows that matter
come first. Emulated, throttled and simulated rows carry their mode and link in the name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bench.analysis.comparison import Compared, Comparison, Side
from bench.analysis.verdicts import VERDICTS
from bench.core.units import format_bytes, format_duration, format_si
from bench.report.tables.grid import Grid, markdown_cell, markdown_table
from bench.report.tables.quantities import format_ratio

MAX_SHOWN = 200
"""Rows of a terminal or GitHub table; further ones are counted, and are in --json."""
_SPREAD = ("layout", "mitigation", "grad_accum", "bucket_bytes", "schedule")
_PREFIX = {
    "batch": "batch {}",
    "device_count": "devices {}",
    "grad_accum": "{} micro-batches",
    "bucket_bytes": "buckets of {} B",
}
_ORDER = {verdict: place for place, verdict in enumerate((*VERDICTS, ""))}


def format_value(value: float | None, *, unit: str) -> str:
    """A figure of a metric for a person."""
    if value is None:
        return ""
    if unit == "s":
        return format_duration(value)
    return format_bytes(value) if unit == "bytes" else format_si(value, unit)


def _names(rows: Iterable[Compared]) -> dict[str, tuple[str, ...]]:
    """Which of the describing fields differ between rows of a workload, and so must be shown."""
    fields = ("size", "dtype", "batch", "device_count", "parallel", *_SPREAD)
    seen: dict[str, dict[str, set[object]]] = {}
    for row in rows:
        found = seen.setdefault(row.workload, {name: set() for name in fields})
        for name in fields:
            found[name].add(getattr(row, name))
    return {
        workload: tuple(name for name in fields if len(found[name]) > 1)
        for workload, found in seen.items()
    }


def _title(row: Compared, *, fields: tuple[str, ...]) -> str:
    words = [row.workload]
    for name in fields:
        value = getattr(row, name)
        words += [_PREFIX.get(name, "{}").format(value)] if value not in ("", None) else []
    if row.mode not in ("real", ""):
        words.append(f"[{row.mode} {row.link}]" if row.link else f"[{row.mode}]")
    return " ".join(words)


def _note(row: Compared) -> str:
    if row.verdict == "INCONCLUSIVE":
        if row.more_trials is None:
            more = "the ratio lies at the threshold"
        else:
            trials = "trial" if row.more_trials == 1 else "trials"
            more = f"about {row.more_trials} more {trials} a side"
        return "; ".join(text for text in (row.reason, more) if text)
    return row.reason


def _sorted(rows: Iterable[Compared]) -> list[Compared]:
    return sorted(rows, key=lambda row: (_ORDER[row.verdict], -abs((row.ratio or 1.0) - 1.0)))


def _cell(side: Side, *, unit: str) -> str:
    value = format_value(side.value, unit=unit)
    return f"{value} (n={side.num})" if value else "not measured"


def same_hardware_grid(comparison: Comparison, *, limit: int | None = MAX_SHOWN) -> Grid:
    """One row per configuration that ran on the same device in both files."""
    rows = _sorted(row for row in comparison.rows if not row.is_cross_hardware)
    fields = _names(rows)
    unit = comparison.metric.unit
    a, b = comparison.labels[0], comparison.labels[1]
    cells = [
        (
            _title(row, fields=fields[row.workload]),
            _cell(row.a, unit=unit),
            _cell(row.b, unit=unit),
            format_ratio(row.ratio, low=row.low, high=row.high),
            format_ratio(row.throughput_ratio, low=None, high=None),
            f"{row.threshold_frac * 100:.3g} %",
            row.verdict,
            _note(row),
        )
        for row in rows[:limit]
    ]
    metric = f"{comparison.metric.name} B/A [95 %]"
    heads = ("workload", f"A {a}>", f"B {b}>", f"{metric}>", "throughput>", "d>", "verdict", "note")
    return Grid(heads=heads, rows=cells, notes=_cut(len(rows), limit))


def cross_hardware_grid(comparison: Comparison, *, limit: int | None = MAX_SHOWN) -> Grid:
    """One row per configuration that ran on different devices: ratios, per watt and per roof."""
    rows = [row for row in comparison.rows if row.is_cross_hardware]
    fields = _names(rows)
    unit = comparison.metric.unit
    cells = [
        (
            _title(row, fields=fields[row.workload]),
            f"{row.a.device}: {_cell(row.a, unit=unit)}",
            f"{row.b.device}: {_cell(row.b, unit=unit)}",
            format_ratio(row.ratio, low=row.low, high=row.high),
            _per_watt(row),
            f"{_share(row.a.roof_frac)} / {_share(row.b.roof_frac)}",
            row.verdict or "ratio only",
            _note(row) if row.verdict else "",
        )
        for row in rows[:limit]
    ]
    heads = (
        "workload",
        f"A {comparison.labels[0]}",
        "B",
        f"{comparison.metric.name} B/A [95 %]>",
        "items/J B/A>",
        "of measured roof A / B>",
        "verdict",
        "note",
    )
    return Grid(heads=heads, rows=cells, title="Different devices", notes=_cut(len(rows), limit))


def _per_watt(row: Compared) -> str:
    return "" if row.energy_ratio is None else f"x{1.0 / row.energy_ratio:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def matrix_grid(comparison: Comparison, *, limit: int | None = MAX_SHOWN) -> Grid:
    """One row per configuration, one column per file after the first; cells are ratios to it."""
    fields = _names(comparison.rows)
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in comparison.rows:
        ratio = format_ratio(row.ratio, low=row.low, high=row.high)
        device = f"{row.b.device}: " if row.is_cross_hardware else ""
        words = (ratio, row.verdict or "ratio only", _note(row) if row.verdict else "")
        title = _title(row, fields=fields[row.workload])
        value = format_value(row.a.value, unit=comparison.metric.unit)
        line = lines.setdefault((title, row.a.device, row.config_hash, value), {})
        line[row.b.file] = device + " ".join(word for word in words if word)
    files = comparison.labels[1:]
    cells = [
        (title, device, value, *(line.get(file, "") for file in files))
        for (title, device, _, value), line in list(lines.items())[:limit]
    ]
    heads = ("workload", "device", f"{comparison.labels[0]}>", *files)
    return Grid(heads=heads, rows=cells, notes=_cut(len(lines), limit))


def _cut(num: int, limit: int | None) -> tuple[str, ...]:
    if limit is None or num <= limit:
        return ()
    return (f"{num - limit} further rows are not shown; --json has them all",)


def grids(comparison: Comparison, *, limit: int | None = MAX_SHOWN) -> list[Grid]:
    """Every table that this comparison needs."""
    if len(comparison.labels) > 2:
        return [matrix_grid(comparison, limit=limit)] if comparison.rows else []
    found = []
    if any(not row.is_cross_hardware for row in comparison.rows):
        found.append(same_hardware_grid(comparison, limit=limit))
    if comparison.is_cross_hardware:
        found.append(cross_hardware_grid(comparison, limit=limit))
    return found


def summary(comparison: Comparison) -> str:
    """One line: how many of which verdict."""
    counts = Counter(row.verdict or "ratio only" for row in comparison.rows)
    order = [*VERDICTS, "ratio only"]
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])
    unmatched = f"; {len(comparison.unmatched)} not matched" if comparison.unmatched else ""
    return f"{told or 'nothing compared'}{unmatched}"


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know beside the ratios."""
    lines = [
        f"geometric mean {mean.phase + ' ' if mean.phase else ''}{mean.device_a} -> "
        f"{mean.device_b} ({mean.file}): {format_ratio(mean.ratio, low=None, high=None)} "
        f"over {mean.num} matched valid configurations"
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


def unmatched_lines(comparison: Comparison, *, limit: int = MAX_SHOWN) -> list[str]:
    """Groups without a counterpart, each with the reason."""
    found = comparison.unmatched
    lines = [f"{u.name} only in {u.file}: {u.reason}" for u in found[:limit]]
    return lines + [f"and {len(found) - limit} more" for _ in [0] if len(found) > limit]


def markdown(comparison: Comparison, *, limit: int | None = None) -> str:
    """Everything as Markdown."""
    parts = [
        f"**{summary(comparison)}**",
        *(markdown_table(g) for g in grids(comparison, limit=limit)),
    ]
    for title, lines in (
        ("Beside the ratios", notes(comparison)),
        ("Not compared", unmatched_lines(comparison)),
    ):
        if lines:
            parts.append(f"{title}:\n\n" + "\n".join(f"- {markdown_cell(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


def github(comparison: Comparison) -> str:
    """A job summary: verdict first, what needs attention open, everything else folded away."""
    urgent = [row for row in comparison.rows if row.verdict in ("REGRESSION", "INCONCLUSIVE")]
    lines = [f"## bench compare ({comparison.metric.name}): {summary(comparison)}", ""]
    for row in _sorted(urgent)[: MAX_SHOWN // 10]:
        ratio = format_ratio(row.ratio, low=row.low, high=row.high)
        title = _title(row, fields=("size", "dtype"))
        lines.append(markdown_cell(f"{row.verdict}: {title} {ratio} {_note(row)}".rstrip()) + "  ")
    details = markdown(comparison, limit=MAX_SHOWN)
    return "\n".join(
        [*lines, "<details><summary>All rows</summary>", "", details.rstrip(), "", "</details>", ""]
    )
