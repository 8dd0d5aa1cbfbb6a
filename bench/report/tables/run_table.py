"""The table at the end of a run: one line per configuration, over its usable trials.

Throughput with a 95 % interval over trials (blank with one trial: nothing is known of the spread
between processes), step median and spread, utilisation, memory, energy, and validity in words.
Figures of trials that must not be used are not shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from bench.core import statistics
from bench.core.nouns import Layout
from bench.core.units import format_bytes, format_duration, format_number, format_si
from bench.results.schema import REASONS, USABLE, Row

if TYPE_CHECKING:
    from rich.table import Table


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


def run_table(trials: Sequence[Row]) -> Table:
    """Build the table; a column in which nothing was measured is left out."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    lines = lines_of(trials)
    shown = swept_params(lines)
    table.add_column("workload", overflow="fold", min_width=20)
    columns = [[title_of(line.first, shown_params=shown) for line in lines]]
    for header, cell in COLUMNS:
        cells = [cell(line) for line in lines]
        if any(cells):
            table.add_column(header, justify="right", no_wrap=True)
            columns.append(cells)
    table.add_column("trials", no_wrap=True)
    columns.append([trials_text(line.rows) for line in lines])
    for row in zip(*columns, strict=True):
        table.add_row(*(Text(cell) for cell in row))
    if lines:
        table.caption = Text(caption_of(lines[0].first))
    return table


def caption_of(row: Row) -> str:
    """Device, memory, torch and threads on one line."""
    parts = [str(row.get("device_name") or row["device"]), str(row.get("device_stack") or "")]
    memory = row.get("device_memory_bytes")
    parts.append(format_bytes(memory) if isinstance(memory, int) else "")
    parts.append(f"torch {row['torch_version']}" if row.get("torch_version") else "")
    if row.get("device_type") == "cpu":
        parts.append(f"{row.get('threads')} threads")
    return ", ".join(part for part in parts if part)


def _throughput_text(line: Line) -> str:
    mean = line.mean("throughput_per_s")
    if mean is None:
        return ""
    interval = line.throughput_interval()
    number, prefix = scaled(mean if interval is None else interval[0])
    unit = f"{prefix}{line.first.get('items_unit')}/s"
    lines = [f"{format_number(number)} {unit}"]
    if interval is not None:
        factor = number / interval[0]
        low, high = (format_number(value * factor) for value in interval[1:])
        lines.append(f"[{low} - {high}]")
    elements = line.mean("elements_per_s")
    if elements is not None and line.first.get("elements_unit"):
        lines.append(format_si(elements, f"{line.first['elements_unit']}/s"))
    return "\n".join(lines)


def scaled(value: float) -> tuple[float, str]:
    """Return the value below a thousand with its SI prefix, from a million on."""
    for prefix, size in (("G", 1e9), ("M", 1e6)):
        if value >= size:
            return value / size, prefix
    return value, ""


def _step_text(line: Line) -> str:
    median, low, high = (
        line.mean(column) for column in ("step_median_ms", "step_p05_ms", "step_p95_ms")
    )
    if median is None or low is None or high is None:
        return ""
    return f"{_ms(median)}\n({_ms(low)} - {_ms(high)})"


def _ms(value_ms: float) -> str:
    return format_duration(value_ms / 1e3)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.3g} %"


def _memory_text(line: Line) -> str:
    return _peak_text(line, "mem_alloc_peak_bytes")


def _host_memory_text(line: Line) -> str:
    return _peak_text(line, "rss_peak_bytes")


def _peak_text(line: Line, column: str) -> str:
    peaks = line.values(column)
    if not peaks:
        return ""
    # Virtual ranks have no memory to measure, and of real ones the first is looked at.
    return format_bytes(max(peaks)) + ("\n(one rank)" if is_several(line.first) else "")


def is_several(row: Row) -> bool:
    """Whether several devices took part, virtual ones included."""
    count = row.get("device_count")
    return isinstance(count, int) and count > 1


def is_virtual(row: Row) -> bool:
    """Whether devices took part that are not there: their energy and loss were not measured."""
    return row.get("mode") in ("emulated", "simulated") and is_several(row)


def _energy_text(line: Line) -> str:
    joules = line.mean("energy_per_item_j")
    if joules is None or is_virtual(line.first):
        return ""
    return f"{format_si(joules, 'J')}/{line.first.get('items_unit')}"


COLUMNS: tuple[tuple[str, Callable[[Line], str]], ...] = (
    ("throughput [95 % CI]", _throughput_text),
    ("step (p5 - p95)", _step_text),
    ("of peak", lambda line: _percent(line.mean("mfu_frac"))),
    ("of roof", lambda line: _percent(line.mean("roof_frac"))),
    ("memory", _memory_text),
    ("host memory", _host_memory_text),
    ("energy", _energy_text),
)


def trials_text(rows: Sequence[Row]) -> str:
    """'5 OK', or '3 OK' and '2 WARN' below it."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row["status"])] = counts.get(str(row["status"]), 0) + 1
    return "\n".join(f"{count} {status}" for status, count in counts.items())


def validity_lines(rows: Sequence[Row]) -> list[str]:
    """Each configuration's reasons in words, with how many of its trials have them."""
    lines = lines_of(rows)
    shown = swept_params(lines)
    texts: list[str] = []
    for line in lines:
        counts: dict[str, int] = {}
        for row in line.rows:
            for code in str(row.get("reasons") or "").split(";"):
                if code:
                    counts[code] = counts.get(code, 0) + 1
        title = title_of(line.first, shown_params=shown)
        texts += [
            f"{title}: {code} in {count} of {len(line.rows)}: {REASONS.get(code, 'unknown reason')}"
            for code, count in counts.items()
        ]
        details = dict.fromkeys(str(row["detail"]) for row in line.rows if row.get("detail"))
        texts += [f"  {detail}" for detail in details]
    return texts
