"""The table at the end of a run: one line per configuration, over its usable trials.

Throughput with a 95 % interval over trials (none with one trial: nothing is known of the spread
between processes), step median and spread, utilisation, memory, energy, and one line for each
reason. Figures of trials that must not be used are not shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bench.core import statistics
from bench.core.nouns import Layout
from bench.core.units import format_bytes
from bench.report.tables.cells import AnyCell, Cell, num_bytes, of, quantity, seconds, share
from bench.report.tables.grid import Grid
from bench.results.schema import REASONS, USABLE, Row

SPARE = ("elements", "energy", "of peak", "host memory", "of roof", "memory", "step [p5, p95]")
MAX_DETAILS = 5
"""Messages of trials below the table; the CSV has all."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One configuration's summary; None where nothing was measured."""

    rows: Sequence[Row]
    usable: Sequence[Row]
    _found: dict[str, list[float]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def first(self) -> Row:
        """The row that names the configuration."""
        return (self.usable or self.rows)[0]

    def mean(self, column: str) -> float | None:
        """Arithmetic mean over usable trials that have the figure."""
        values = self.values(column)
        return sum(values) / len(values) if values else None

    def values(self, column: str) -> list[float]:
        """Figures of the usable trials; found once, since tables and panels ask again."""
        if column not in self._found:
            cells = [row[column] for row in self.usable if column in row]
            self._found[column] = [float(cell) for cell in cells if isinstance(cell, (int, float))]
        return self._found[column]

    def throughput_interval(self) -> tuple[float, float, float] | None:
        """Geometric mean and 95 % interval over trials; None under two trials."""
        values = self.values("throughput_per_s")
        is_known = len(values) >= 2 and min(values) > 0.0
        return statistics.mean_interval_log(values) if is_known else None


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """Group rows by configuration and device, in order of appearance."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = (row["config_hash"], row["device"], row.get("device_name"))
        groups.setdefault(key, []).append(row)
    return [
        Line(rows=group, usable=[row for row in group if row["status"] in USABLE])
        for group in groups.values()
    ]


def title_of(row: Row, *, shown_params: Sequence[str] = ()) -> str:
    """Name of a configuration as tables show it: mode unless real, devices, layout and link."""
    parts = [str(row["workload"]), str(row.get("size") or ""), str(row.get("dtype") or "")]
    parts.append(f"b{row['batch']}" if row.get("batch") is not None else "")
    parts.append("compiled" if row.get("compile") else "")
    parts.append(str(row.get("compile_mode") or ""))
    parts.append("channels-last" if row.get("channels_last") else "")
    params = params_of(row)
    parts += [f"{name}={params[name]}" for name in shown_params if name in params]
    mode = str(row.get("mode") or "real")
    parts.append("" if mode == "real" else f"[{mode}]")
    parts.append(spread_of(row))
    parts.append(f"({row['chip_limit']})" if row.get("chip_limit") else "")
    return " ".join(part for part in parts if part)


def spread_of(row: Row) -> str:
    """'x8 tp tp4 x dp2 over h800-nvlink with powersgd-2'; '' on one device."""
    count, layout = row.get("device_count"), str(row.get("layout") or "")
    remedies = remedies_of(row)
    parts = (
        f"x{count}" if isinstance(count, int) and count > 1 else "",
        str(row.get("parallel") or ""),
        layout if " x " in layout else "",
        f"over {row['link']}" if row.get("link") else "",
        f"with {remedies}" if remedies else "",
    )
    return " ".join(part for part in parts if part)


def remedies_of(row: Row) -> str:
    """What is done about a narrow link beside the defaults: 'powersgd-2, 4 micro-batches'."""
    usual = Layout()
    accumulated, bucket_bytes = row.get("grad_accum"), row.get("bucket_bytes")
    schedule = str(row.get("schedule") or "")
    parts = [str(row.get("mitigation") or "")]
    if isinstance(accumulated, int) and accumulated != usual.grad_accum:
        parts.append(f"{accumulated} micro-batches")
    if isinstance(bucket_bytes, int) and bucket_bytes != usual.bucket_bytes:
        parts.append(f"buckets of {format_bytes(bucket_bytes)}")
    parts.append(schedule if schedule != usual.schedule else "")
    return ", ".join(part for part in parts if part)


def params_of(row: Row) -> dict[str, object]:
    """Parameters by name; none where a file from elsewhere has JSON of another shape."""
    found = json.loads(str(row.get("params_json") or "{}"))
    if not isinstance(found, dict):
        return {}
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in found.items()
    }


def swept_params(lines: Sequence[Line]) -> list[str]:
    """Parameters in which two lines of one workload at one size differ; batch is always shown."""
    seen: dict[tuple[object, str], set[object]] = {}
    for line in lines:
        row = line.first
        group = (row["workload"], row.get("size"))
        for name, value in params_of(row).items():
            seen.setdefault((group, name), set()).add(value)
    names = [name for (_, name), values in seen.items() if len(values) > 1 and name != "batch"]
    return list(dict.fromkeys(names))


def title_cell(row: Row, *, shown_params: Sequence[str] = ()) -> AnyCell:
    """The same as a cell, where the mode is a badge."""
    title = title_of({**row, "mode": "real"}, shown_params=shown_params)
    mode = str(row.get("mode") or "real")
    return title if mode == "real" else Cell(text=title, mode=mode)


def run_grid(trials: Sequence[Row]) -> Grid:
    """One line per configuration; a column in which nothing was measured is left out."""
    lines = lines_of(trials)
    shown = swept_params(lines)
    rows = [
        (
            title_cell(line.first, shown_params=shown),
            caption_of(line.first),
            *(cell(line) for cell in COLUMNS.values()),
            trials_text(line.rows),
        )
        for line in lines
    ]
    heads = ("workload", "device", *COLUMNS, "trials")
    return Grid(heads=heads, rows=rows, names=("device",), spare=SPARE)


def caption_of(row: Row) -> str:
    """Device, memory, torch and threads on one line."""
    parts = [str(row.get("device_name") or row["device"]), str(row.get("device_stack") or "")]
    memory = row.get("device_memory_bytes")
    parts.append(format_bytes(memory) if isinstance(memory, int) else "")
    parts.append(f"torch {row['torch_version']}" if row.get("torch_version") else "")
    if row.get("threads"):
        parts.append(f"{row.get('threads')} threads")
    return ", ".join(part for part in parts if part)


def _throughput(line: Line) -> AnyCell:
    unit = of(f"{line.first.get('items_unit')}/s")
    interval = line.throughput_interval()
    if interval is None:
        return quantity(line.mean("throughput_per_s"), unit)
    return quantity(interval[0], unit, ends=interval[1:])


def _elements(line: Line) -> AnyCell:
    unit = line.first.get("elements_unit")
    return quantity(line.mean("elements_per_s"), of(f"{unit}/s")) if unit else ""


def _step(line: Line) -> AnyCell:
    median, low, high = (
        line.mean(column) for column in ("step_median_ms", "step_p05_ms", "step_p95_ms")
    )
    if median is None or low is None or high is None:
        return ""
    return quantity(median * 1e-3, seconds, ends=(low * 1e-3, high * 1e-3))


def _peak(column: str) -> Callable[[Line], AnyCell]:
    def cell(line: Line) -> AnyCell:
        peaks = line.values(column)
        # Virtual ranks have no memory to measure, and of real ones the first is looked at.
        aside = "(one rank)" if is_several(line.first) else ""
        found = quantity(max(peaks, default=None), num_bytes)
        return replace(found, aside=aside) if isinstance(found, Cell) else ""

    return cell


def is_several(row: Row) -> bool:
    """Whether several devices took part, virtual ones included."""
    count = row.get("device_count")
    return isinstance(count, int) and count > 1


def is_virtual(row: Row) -> bool:
    """Whether devices took part that are not there: their energy and loss were not measured."""
    return row.get("mode") in ("emulated", "simulated") and is_several(row)


def _energy(line: Line) -> AnyCell:
    if is_virtual(line.first):
        return ""
    return quantity(line.mean("energy_per_item_j"), of(f"J/{line.first.get('items_unit')}"))


COLUMNS: dict[str, Callable[[Line], AnyCell]] = {
    "throughput [95 %]": _throughput,
    "elements": _elements,
    "step [p5, p95]": _step,
    "of peak": lambda line: share(line.mean("mfu_frac")),
    "of roof": lambda line: share(line.mean("roof_frac")),
    "memory": _peak("mem_alloc_peak_bytes"),
    "host memory": _peak("rss_peak_bytes"),
    "energy": _energy,
}


def trials_text(rows: Sequence[Row]) -> str:
    """'3 OK, 2 WARN'."""
    counts = Counter(str(row["status"]) for row in rows)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def reason_lines(rows: Sequence[Row]) -> list[str]:
    """One line for each reason: how many trials of which workloads have it, and what it means."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for code in dict.fromkeys(str(row.get("reasons") or "").split(";")):
            found.setdefault(code, []).append(row)
    found.pop("", None)
    lines = [
        f"{code}: {len(those)} of {len(rows)} trials, {_workloads(those)}: "
        f"{REASONS.get(code, 'unknown reason')}"
        for code, those in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    details = Counter(str(row["detail"]) for row in rows if row.get("detail"))
    lines += [
        f"  {detail}" + (f" ({num} trials)" if num > 1 else "")
        for detail, num in details.most_common(MAX_DETAILS)
    ]
    hidden = len(details) - MAX_DETAILS
    return [*lines, f"  and {hidden} more messages"] if hidden > 0 else lines


def _workloads(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(str(row["workload"]) for row in rows))
    return ", ".join(names) if len(names) <= 2 else f"{len(names)} workloads"
