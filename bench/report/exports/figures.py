"""Configurations with names, and their figures with intervals: what all exports are made of.

Tools that keep a history know a benchmark by its name alone, so a name holds all that must be equal
for two points of a series to be compared: workload, size, dtype, batch, mode (also when it is
real), link, device, and a hash of the configuration, which covers every parameter and the
workload's version. It does not depend on what else is exported, except where two environments give
one configuration: then what tells them apart is added.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.trials.configuration import Trials, gather, number
from bench.analysis.trials.estimates import estimate
from bench.analysis.trials.identity import IDENTITY
from bench.analysis.trials.titles import LAID_OUT, PROGRAM, title_of
from bench.report.tables.grid import plain
from bench.results.schema import Row

KEY = (*IDENTITY, "device", "env_id")
"""What trials share that repeat one another: files of other machines may be among those given."""
HOW_AND_WHERE = (
    "mode",
    "link",
    "parallel",
    "layout",
    "schedule",
    "mitigation",
    "bucket_bytes",
    "grad_accum",
    "device",
    "device_name",
    "device_count",
)
"""What every format tells of a row beside the workload and its parameters."""
_APART = (
    ("device", ""),
    ("workload_version", "version "),
    ("torch_version", "torch "),
    ("driver_version", "driver "),
    ("host_hash", "host "),
    ("env_id", "env "),
)
"""What may tell two configurations of one name apart, in order."""
_IN_TITLE = ("workload", "size", "dtype", "mode", "parallel", "layout", "link", "mitigation",
             "schedule")  # fmt: skip
_MAX_CELL = 100
"""Characters of a cell in a name; Bencher takes names of 1024."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A column that is exported as a figure; '{item}' stands for what throughput counts."""

    column: str
    label: str
    """What it is, in words."""
    unit: str
    key: str
    """Name with its unit, for formats that have only names."""
    is_bigger_better: bool = False


MEASURES = (
    Measure(
        column="throughput_per_s",
        label="throughput",
        unit="{item}/s",
        key="throughput_{item}_per_s",
        is_bigger_better=True,
    ),
    Measure(column="step_median_ms", label="median step", unit="ms", key="step_median_ms"),
    Measure(column="step_low_ms", label="fast end of the step", unit="ms", key="step_low_ms"),
    Measure(column="step_high_ms", label="slow end of the step", unit="ms", key="step_high_ms"),
    Measure(
        column="comm_exposed_ms",
        label="communication waited for",
        unit="ms",
        key="comm_exposed_ms",
    ),
    Measure(column="ttft_ms", label="time to first token", unit="ms", key="ttft_ms"),
    Measure(column="tpot_ms", label="time per output token", unit="ms", key="tpot_ms"),
    Measure(column="lat_p90_ms", label="p90 latency", unit="ms", key="lat_p90_ms"),
    Measure(column="lat_p99_ms", label="p99 latency", unit="ms", key="lat_p99_ms"),
    Measure(
        column="energy_per_item_j",
        label="energy per {item}",
        unit="J",
        key="energy_per_{item}_j",
    ),
    Measure(
        column="mem_alloc_peak_bytes",
        label="peak device memory",
        unit="bytes",
        key="mem_alloc_peak_bytes",
    ),
    Measure(
        column="rss_peak_bytes",
        label="peak host memory",
        unit="bytes",
        key="rss_peak_bytes",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measure of one configuration over its usable trials."""

    label: str
    unit: str
    key: str
    column: str
    is_bigger_better: bool
    value: float
    """Geometric mean over trials, in `unit`."""
    low: float | None
    """Lower end of its 95 % interval; None with a single trial."""
    high: float | None
    num_trials: int


@dataclass(frozen=True, kw_only=True)
class Named:
    """Trials that repeat one another, under the name that other tools know them by."""

    name: str
    trials: Trials

    @property
    def first(self) -> Row:
        """Row that says what ran where."""
        return self.trials.first

    def figures(self) -> list[Figure]:
        """Return figures in the order of `MEASURES`; what no trial measured is left out."""
        found = (_figure(measure, trials=self.trials) for measure in MEASURES)
        return [figure for figure in found if figure is not None]


def configurations(rows: Sequence[Row]) -> list[Named]:
    """Group usable rows into configurations with distinct names, in order of appearance."""
    found = gather(rows, by=KEY)
    names = _distinct([trials.first for trials in found])
    return [Named(name=name, trials=trials) for name, trials in zip(names, found, strict=True)]


def name_of(row: Row) -> str:
    """Name of a row's configuration: 'imaging-train tiny fp32 b2 [real] on Test CPU #c0ffee12'."""
    # Cut cell by cell, so that a damaged one cannot push the mode off the end.
    cut = {column: _short(row.get(column)) for column in _IN_TITLE}
    whole = {**row, **cut}
    plain_title = title_of(whole, shown=(*PROGRAM, "chip_limit"))
    parts = [
        plain_title,
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
    for column, prefix in _APART:
        for name, same in _places(names).items():
            if len({rows[index].get(column) for index in same}) > 1:
                for index in same:
                    value = plain(str(rows[index].get(column) or "unknown"))[:24]
                    names[index] = f"{name} {prefix}{value}"
    for name, same in _places(names).items():
        for place, index in enumerate(same[1:], start=2):
            names[index] = f"{name} ({place})"
    return names


def _places(names: list[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return places


def _item_of(row: Row) -> str:
    """What throughput counts, as a word that may stand in any name."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", str(row.get("items_unit") or "")).strip("_")
    return word[:24] or "item"


def trial_values(trials: Trials, column: str) -> list[float]:
    """Figures of single trials that can be figures: over zero, and of this world."""
    return trials.figures(lambda row: number(row, column))


def _figure(measure: Measure, *, trials: Trials) -> Figure | None:
    values = trial_values(trials, measure.column)
    if not values:
        return None
    value, low, high = _interval(values)
    item = _item_of(trials.first)
    is_part = measure.unit == "bytes" and trials.num_devices > 1
    return Figure(
        label=measure.label.format(item=item) + (" of one rank" if is_part else ""),
        unit=measure.unit.format(item=item),
        key=measure.key.format(item=item),
        column=measure.column,
        is_bigger_better=measure.is_bigger_better,
        value=value,
        low=low,
        high=high,
        num_trials=len(values),
    )


def _interval(values: list[float]) -> tuple[float, float | None, float | None]:
    found = estimate(values)
    if found is None or min(values) == max(values):  # exactly, not up to rounding of logarithms
        end = values[0] if len(values) > 1 else None
        return values[0], end, end
    return found.value, *(found.interval or (None, None))
