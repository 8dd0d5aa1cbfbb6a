"""Which rows of some files give figures, and the figures: what all exports are made of.

Only usable trials (OK, WARN) become figures. A trial counts once, by its first usable attempt,
however often its row was given (a file named twice would otherwise look twice as certain); what
gives no figure is kept beside, to be counted and explained.

Tools that keep a history know a benchmark by its name alone, so a name holds all that must be equal
for two points of a series to be compared: workload, size, dtype, batch, mode (also when it is
real), link, device, and a hash of the configuration, which covers every parameter and the
workload's version. It does not depend on what else is exported, except where two environments give
one configuration: then what distinguishes them is added.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.trials.configuration import IDENTITY, Trials, gather, grouped, is_virtual
from bench.analysis.trials.titles import LAID_OUT, PROGRAM, SERVED, title_of
from bench.core.log_estimate import estimate
from bench.core.units import counted
from bench.report.tables.grid import plain
from bench.results.schema import USABLE, Row

KEY = (*IDENTITY, "device", "env_id")
"""What trials share that repeat one another: files of other machines may be among those given."""
_ATTEMPT = ("run_id", "trial", "attempt", "started_utc", "status", "config_hash", *KEY)
_MADE_UP = ("loss_first", "loss_last", "energy_per_item_j")
HOW_AND_WHERE = ("mode", "link", "parallel", "layout", "schedule", "mitigation", "bucket_bytes",
                 "grad_accum", "device", "device_name", "device_count")  # fmt: skip
"""What every format shows of a row beside the workload and its parameters."""
_APART = {"device": "", "workload_version": "version ", "torch_version": "torch ",
          "driver_version": "driver ", "runtime_version": "runtime ", "dnn_version": "dnn ",
          "python_version": "python ", "host_hash": "host ", "env_id": "env "}  # fmt: skip
"""What may tell two configurations of one name apart, in order."""
_IN_TITLE = ("workload", "size", "dtype", "mode", "parallel", "layout", "link", "mitigation",
             "schedule", *SERVED)  # fmt: skip
_MAX_CELL = 100
"""Characters of a cell in a name; Bencher takes names of 1024."""


_MEASURES = {
    "throughput_per_s": ("throughput", "{item}/s"),
    "step_median_ms": ("median step", "ms"),
    "step_low_ms": ("fast end of the step", "ms"),
    "step_high_ms": ("slow end of the step", "ms"),
    "comm_exposed_ms": ("communication waited for", "ms"),
    "ttft_ms": ("time to first token", "ms"),
    "tpot_ms": ("time per output token", "ms"),
    "attainment_frac": ("requests in time", "share"),
    "goodput_per_s": ("requests in time", "request/s"),
    "capacity_low_per_s": ("capacity, lower end", "request/s"),
    "ttft_p99_ms": ("p99 time to first token", "ms"),
    "tpot_p99_ms": ("p99 time per output token", "ms"),
    "lat_p90_ms": ("p90 latency", "ms"),
    "lat_p99_ms": ("p99 latency", "ms"),
    "energy_per_item_j": ("energy per {item}", "J"),
    "mem_alloc_peak_bytes": ("peak device memory", "bytes"),
    "rss_peak_bytes": ("peak host memory", "bytes"),
}
"""Columns that are exported as figures, in words, with units; {item} is what throughput counts."""
_BIGGER_IS_BETTER = (
    *("throughput_per_s", "attainment_frac", "goodput_per_s", "capacity_low_per_s"),
)
_KEYS = {
    "throughput_per_s": "throughput_{item}_per_s",
    "energy_per_item_j": "energy_per_{item}_j",
}
"""Names of figures where they are not the column's: for formats that have only names."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measure of one configuration over its usable trials."""

    label: str
    unit: str
    key: str
    is_bigger_better: bool
    value: float
    """Geometric mean over trials, in `unit`."""
    ends: tuple[float, float] | None
    """Its 95 % interval; None with a single trial."""
    num_trials: int


@dataclass(frozen=True, kw_only=True)
class Named:
    """Trials that repeat one another, under the name that other tools know them by."""

    name: str
    trials: Trials

    def figures(self) -> list[Figure]:
        """What any trial measured."""
        found = ((column, self.trials.figures(column)) for column in _MEASURES)
        return [_figure(column, values, trials=self.trials) for column, values in found if values]


@dataclass(frozen=True, kw_only=True)
class ExportedRows:
    """Rows of all files, each once, by what may be done with them."""

    configurations: tuple[Named, ...]
    """Usable trials, under distinct names, in order of appearance."""
    unusable: tuple[Row, ...]
    num_rows: int
    num_repeated: int
    """Rows left out because the same trial was given before."""

    @property
    def usable(self) -> list[Row]:
        """One row per usable trial."""
        return [row for one in self.configurations for row in one.trials.used]

    def notes(self) -> list[str]:
        """Lines for stderr about what gives no figure; none when every row does."""
        kinds = Counter(map(_kind, self.unusable))
        reported = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        lost = f"{len(self.unusable)} of {counted(self.num_rows, 'row')} unusable, without figures"
        again = f"{counted(self.num_repeated, 'row')} given more than once and counted once"
        return [f"{lost}: {reported}"] * bool(kinds) + [again] * bool(self.num_repeated)


def _kind(row: Row) -> str:
    reasons = plain(str(row.get("reasons") or "")).replace(";", ", ")
    return f"{row['status']} ({reasons})" if reasons else str(row["status"])


def select(rows: Sequence[Row]) -> ExportedRows:
    """Sort the rows of one or more files; cells that virtual ranks make meaningless are blank."""
    once: dict[tuple[object, ...], Row] = {}
    for row in rows:
        # One real device cannot show the loss of several, nor their energy per item.
        blank = dict.fromkeys(_MADE_UP) if is_virtual(row) else {}
        once.setdefault(tuple(row.get(name) for name in _ATTEMPT), {**row, **blank})
    found = gather((row for row in once.values() if row["status"] in USABLE), by=KEY)
    names = _distinct([trials.first for trials in found])
    num_usable = sum(len(trials.used) for trials in found)
    unusable = tuple(row for row in once.values() if row["status"] not in USABLE)
    return ExportedRows(
        configurations=tuple(Named(name=n, trials=t) for n, t in zip(names, found, strict=True)),
        unusable=unusable,
        num_rows=len(once),
        num_repeated=len(rows) - num_usable - len(unusable),
    )


def name_of(row: Row) -> str:
    """Name of a row's configuration: 'imaging-train tiny fp32 b2 [real] on Test CPU #c0ffee12'."""
    # Cut cell by cell, so that a damaged one cannot push the mode off the end.
    cut = {column: _short(row.get(column)) for column in _IN_TITLE}
    whole = {**row, **cut}
    parts = [
        title_of(whole, shown=(*PROGRAM, "chip_limit")),
        f"[{cut['mode'] or 'real'}]",
        title_of(whole, shown=[name for name in LAID_OUT if name != "mode"], name=""),
        f"on {_short(row.get('device_name') or row['device'])}",
        f"#{_short(row['config_hash'])[:8]}",
    ]
    return " ".join(part for part in parts if part)


def _short(value: object) -> str:
    return plain(str(value or ""))[:_MAX_CELL]


def _distinct(rows: Sequence[Row]) -> list[str]:
    names = [name_of(row) for row in rows]
    for column, prefix in _APART.items():
        for name, same in grouped(range(len(names)), names.__getitem__).items():
            if len({rows[index].get(column) for index in same}) > 1:
                for index in same:
                    value = plain(str(rows[index].get(column) or "unknown"))[:24]
                    names[index] = f"{name} {prefix}{value}"
    for name, same in grouped(range(len(names)), names.__getitem__).items():
        for place, index in enumerate(same[1:], start=2):
            names[index] = f"{name} ({place})"
    return names


def _figure(column: str, values: list[float], *, trials: Trials) -> Figure:
    value, ends = _interval(values)
    # What throughput counts, as a word that may stand in any name.
    word = re.sub(r"[^A-Za-z0-9]+", "_", trials.text("items_unit")).strip("_")
    item = word[:24] or "item"
    label, unit = (text.format(item=item) for text in _MEASURES[column])
    is_part = unit == "bytes" and trials.num_devices > 1
    return Figure(
        label=f"{label} of one rank" if is_part else label,
        unit=unit,
        key=_KEYS.get(column, column).format(item=item),
        is_bigger_better=column in _BIGGER_IS_BETTER,
        value=value,
        ends=ends,
        num_trials=len(values),
    )


def _interval(values: list[float]) -> tuple[float, tuple[float, float] | None]:
    found = estimate(values)
    if found is None or min(values) == max(values):  # exactly, not up to rounding of logarithms
        return values[0], (values[0], values[0]) if len(values) > 1 else None
    return found.value, found.interval
