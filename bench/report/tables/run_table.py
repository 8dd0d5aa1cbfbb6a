"""The table at the end of a run: one line per configuration, over its usable trials.

Throughput with a 95 % interval over trials (none with one trial: nothing is known of the spread
between processes), step median and spread, utilisation, memory, energy, and one line for each
reason. Figures of trials that must not be used are not shown.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from bench.analysis.trials.configuration import Trials, is_virtual
from bench.analysis.trials.titles import LONG, differing
from bench.core.units import counted, format_bytes, plural
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell, Cell
from bench.report.tables.grid import Grid
from bench.results.schema import REASONS, USABLE, Row

Columns = Mapping[str, Callable[[Trials], AnyCell]]
"""Cells of a configuration by head."""
SPARE = ("elements", "energy", "of peak", "host memory", "of roof", "memory", "step [p5, p95]")
MAX_DETAILS = 5
"""Messages of trials below the table; the CSV has all."""


def run_grid(lines: Sequence[Trials]) -> Grid:
    """One line per configuration; a column in which nothing was measured is left out."""
    columns = {"device": lambda line: caption_of(line), **COLUMNS}
    grid = configuration_grid(lines, columns=columns)
    return replace(grid, names=("device",), spare=SPARE)


def configuration_grid(
    lines: Sequence[Trials], *, columns: Columns, but: Collection[str] = ()
) -> Grid:
    """One line per configuration: what it is, some columns, and how its trials ended.

    The title leaves out what is in `but`, for which there is a column.
    """
    shown = [name for name in (*LONG, *differing(line.first for line in lines)) if name not in but]
    named: Columns = {"workload": lambda line: cells.title_cell(line.first, shown=shown)}
    return Grid.of(lines, {**named, **columns, "trials": lambda line: trials_text(line.rows)})


def caption_of(line: Trials) -> str:
    """Device, memory, torch and threads on one line."""
    row = line.first
    memory, threads = row.get("device_memory_bytes"), row.get("threads")
    parts = [
        line.one_device,
        line.text("device_stack"),
        format_bytes(memory) if isinstance(memory, int) else "",
        f"torch {row['torch_version']}" if row.get("torch_version") else "",
        counted(threads, "thread") if isinstance(threads, int) and threads else "",
    ]
    return ", ".join(part for part in parts if part)


def _throughput(line: Trials) -> AnyCell:
    unit = cells.of(f"{line.first.get('items_unit')}/s")
    found = line.estimate("throughput_per_s")
    if found is None or found.interval is None:
        return cells.quantity(line.mean("throughput_per_s"), unit)
    return cells.figure(found, unit)


def _elements(line: Trials) -> AnyCell:
    unit = line.first.get("elements_unit")
    return cells.quantity(line.mean("elements_per_s"), cells.of(f"{unit}/s")) if unit else ""


def _step(line: Trials) -> AnyCell:
    median, low, high = map(line.mean, ("step_median_ms", "step_p05_ms", "step_p95_ms"))
    if median is None or low is None or high is None:
        return ""
    return cells.quantity(median * 1e-3, cells.seconds, ends=(low * 1e-3, high * 1e-3))


def _peak(column: str) -> Callable[[Trials], AnyCell]:
    def cell(line: Trials) -> AnyCell:
        peaks = line.values(column)
        # Virtual ranks have no memory to measure, and of real ones the first is looked at.
        aside = "(one rank)" if line.num_devices > 1 else ""
        found = cells.quantity(max(peaks, default=None), cells.num_bytes)
        return replace(found, aside=aside) if isinstance(found, Cell) else ""

    return cell


def _energy(line: Trials) -> AnyCell:
    if is_virtual(line.first):
        return ""
    return cells.quantity(
        line.mean("energy_per_item_j"), cells.of(f"J/{line.first.get('items_unit')}")
    )


COLUMNS: Columns = {
    "throughput [95 %]": _throughput,
    "elements": _elements,
    "step [p5, p95]": _step,
    "of peak": lambda line: cells.share(line.mean("mfu_frac")),
    "of roof": lambda line: cells.share(line.mean("roof_frac")),
    "memory": _peak("mem_alloc_peak_bytes"),
    "host memory": _peak("rss_peak_bytes"),
    "energy": _energy,
}


def data_lines(lines: Iterable[Trials]) -> list[str]:
    """How many items of --data were used, and their sizes where they differ."""
    found: dict[str, None] = {}
    for line in lines:
        num = line.median("distinct_items")
        if num is None or line.text("data") in ("generated", "resident"):
            continue
        element = line.text("elements_unit") or "element"
        sizes = [part.split(" of ") for part in line.text("item_sizes").split("; ") if part]
        parts = [f"{count} of {counted(int(size), element)}" for count, size in sizes]
        if not sizes and (each := line.median("elements_per_item")):
            is_whole = each == round(each)
            shown = (
                counted(round(each), element) if is_whole else f"{each:.3g} {plural(element, 2)}"
            )
            parts = [f"{shown} each"]
        items = counted(round(num), line.text("items_unit") or "item")
        used = f"{line.text('workload')} used {items} of its data"
        # What a batch of several holds is known in sum alone.
        mean = " on average" if (line.median("batch") or 1) > 1 else ""
        found[f"{used}: {', '.join(parts)}{mean}" if parts else used] = None
    return list(found)


def trials_text(rows: Sequence[Row]) -> str:
    """'3 OK, 2 WARN'."""
    counts = Counter(str(row["status"]) for row in rows)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def by_reason(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by each code among their reasons, the commonest code first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for code in dict.fromkeys(str(row.get("reasons") or "").split(";")):
            found.setdefault(code, []).append(row)
    found.pop("", None)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def reason_lines(rows: Sequence[Row]) -> list[str]:
    """One line for each reason: how many trials of which workloads have it, and what it means."""
    lines = [
        f"{code}: {len(those)} of {counted(len(rows), 'trial')}, {_workloads(those)}: "
        f"{REASONS.get(code, 'unknown reason')}"
        for code, those in by_reason(rows).items()
    ]
    gravest_first = sorted(rows, key=lambda row: (row["status"] in USABLE, row["status"] == "OK"))
    details = Counter(str(row["detail"]) for row in gravest_first if row.get("detail"))
    lines += [
        f"  {detail}" + (f" ({counted(num, 'trial')})" if num > 1 else "")
        for detail, num in details.most_common(MAX_DETAILS)
    ]
    hidden = len(details) - MAX_DETAILS
    return [*lines, f"  and {counted(hidden, 'more message')}"] if hidden > 0 else lines


def _workloads(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(str(row["workload"]) for row in rows))
    return ", ".join(names) if len(names) <= 2 else f"{len(names)} workloads"
