"""What one phase of a workload asks of one device: time, work, traffic, memory, energy per item.

Read off the usable trials of a group; time, energy and memory carry their spread, work and traffic
are formulas. From them follows where the phase lies under the device's measured roofline. Blank
stays None: nothing is borrowed from another device or guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bench.analysis.estimates import LogEstimate, estimate, exact
from bench.analysis.groups import gather
from bench.analysis.identity import DEVICE, LAYOUT, LEAST, MOST

if TYPE_CHECKING:
    from pandas import DataFrame

SETTING = (
    "workload_version",
    "size",
    "params_json",
    "dtype",
    "compile",
    "compile_mode",
    "channels_last",
    "chip_limit",
    "data",
    *LAYOUT,
)
"""What two phases share when their ratio compares like with like, beside the workload."""
_NUMBERS = (
    "step_median_ms",
    "steps",
    "items",
    "throughput_per_s",
    "elements_per_item",
    "flops_per_item",
    "bytes_per_item",
    "achieved_flops_per_s",
    "roof_flops_per_s",
    "roof_bytes_per_s",
    "roof_frac",
    "mfu_frac",
    "mem_alloc_peak_bytes",
    "rss_peak_bytes",
    "energy_per_item_j",
    "lat_p90_ms",
)
_WORDS = ("items_unit", "elements_unit", "energy_scope", "energy_source")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Workload without its phase, and how it was run."""

    workload: str
    facts: tuple[tuple[str, str], ...]
    """Columns of `SETTING` with their values as text; '' is blank."""

    def fact(self, name: str) -> str:
        """Value of one column."""
        return dict(self.facts)[name]


@dataclass(frozen=True, kw_only=True)
class Demand:
    """One phase on one device."""

    setting: Setting
    phase: str
    device_type: str
    device: str
    """Device's name."""
    device_label: str
    """What --device was: cpu, cuda:0."""
    batch: int | None
    num_trials: int
    num_lost: int
    lost_reasons: str
    items_unit: str
    elements_unit: str
    energy_scope: str
    elements_per_item: float | None
    time_per_item_s: LogEstimate | None
    """Median step time per item."""
    throughput_per_s: LogEstimate | None
    step_s: LogEstimate | None
    latency_p90_s: LogEstimate | None
    memory_bytes: LogEstimate | None
    memory_kind: str
    energy_per_item_j: LogEstimate | None
    utilisation: LogEstimate | None
    utilisation_kind: str
    flops_per_item: float | None
    bytes_per_item: float | None
    roof_flops_per_s: float | None
    roof_bytes_per_s: float | None

    @property
    def name(self) -> str:
        """`imaging-train`."""
        return f"{self.setting.workload}-{self.phase}"

    @property
    def flops_per_byte(self) -> float | None:
        """Arithmetic intensity: model FLOPs over least memory traffic."""
        if not self.flops_per_item or not self.bytes_per_item:
            return None
        return self.flops_per_item / self.bytes_per_item

    @property
    def ridge_flops_per_byte(self) -> float | None:
        """Intensity at which this device's measured roofs meet."""
        if not self.roof_flops_per_s or not self.roof_bytes_per_s:
            return None
        return self.roof_flops_per_s / self.roof_bytes_per_s

    @property
    def roof(self) -> str | None:
        """Which measured roof is the lower one at this intensity: compute or bandwidth."""
        intensity, ridge = self.flops_per_byte, self.ridge_flops_per_byte
        if intensity is None or ridge is None:
            return None
        return "compute" if intensity >= ridge else "bandwidth"

    @property
    def reached_frac(self) -> float | None:
        """Speed as a share of what the lower roof allows at this intensity."""
        intensity, roof = self.flops_per_byte, self.roof
        if intensity is None or roof is None or self.throughput_per_s is None:
            return None
        if self.roof_flops_per_s is None or self.roof_bytes_per_s is None:
            return None
        allowed = min(self.roof_flops_per_s, intensity * self.roof_bytes_per_s)
        return self.throughput_per_s.value * (self.flops_per_item or 0.0) / allowed


def wide_rows(frame: DataFrame) -> pd.Series[bool]:
    """Which rows are of several devices or over a modelled link."""
    count = pd.to_numeric(frame["device_count"], errors="coerce").astype("float64")
    link = frame["link"].astype("string").fillna("")
    return ((count > 1.0) | (link != "")).astype(bool)


def demands(frame: DataFrame) -> list[Demand]:
    """Every phase on every device in `frame`, also those without a usable trial."""
    groups = gather([("", frame)], columns=(*_NUMBERS, *_WORDS))
    rows = groups.trials
    rows["setting_device"] = rows.groupby(
        ["workload", *SETTING, *DEVICE], dropna=False, observed=True, sort=False
    ).ngroup()
    lost_reasons = groups.lost_reasons()
    found = []
    for _, part in rows.groupby("setting_device", sort=True):
        numbers = part["group"].unique().tolist()
        lost = int(groups.table.loc[numbers, "num_lost"].sum())
        reasons = ", ".join(dict.fromkeys(lost_reasons[n] for n in numbers if n in lost_reasons))
        found.append(_demand(part, num_lost=lost, lost_reasons=reasons))
    return found


def _values(used: DataFrame, column: str, *, scale: float = 1.0) -> list[float]:
    values = used[column].to_numpy(dtype=np.float64) * scale
    return [value for value in values.tolist() if LEAST < value < MOST]


def _constant(used: DataFrame, column: str) -> float | None:
    values = _values(used, column)
    return float(np.median(values)) if values else None


def _word(part: DataFrame, column: str) -> str:
    words = [word for word in part[column].astype(str).unique() if word]
    return words[0] if len(words) == 1 else "mixed" if words else ""


def _first_of(
    used: DataFrame, choices: Sequence[tuple[str, str]]
) -> tuple[LogEstimate | None, str]:
    """Estimate by the first column that is measured, and what to call it."""
    for column, name in choices:
        found = estimate(_values(used, column))
        if found is not None:
            return found, name
    return None, ""


def _text(value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _demand(part: DataFrame, *, num_lost: int, lost_reasons: str) -> Demand:
    first = part.iloc[0]
    workload, _, phase = str(first["workload"]).rpartition("-")
    used = part[part["is_used"]]
    per_item = used["step_median_ms"] * 1e-3 * used["steps"] / used["items"]
    memory, memory_kind = _first_of(
        used,
        (("mem_alloc_peak_bytes", "tensors on the device"), ("rss_peak_bytes", "process")),
    )
    utilisation, utilisation_kind = _first_of(
        used, (("roof_frac", "of measured roof"), ("mfu_frac", "of datasheet peak"))
    )
    facts = tuple((name, _text(first[name])) for name in SETTING)
    return Demand(
        setting=Setting(workload=workload, facts=facts),
        phase=phase,
        device_type=str(first["device_type"]),
        device=str(first["device_name"]),
        device_label=str(first["device"]),
        batch=None if pd.isna(first["batch"]) else int(first["batch"]),
        num_trials=len(used),
        num_lost=num_lost,
        lost_reasons=lost_reasons,
        items_unit=_word(used, "items_unit"),
        elements_unit=_word(used, "elements_unit"),
        energy_scope=f"{_word(used, 'energy_scope')} {_word(used, 'energy_source')}".strip(),
        elements_per_item=_constant(used, "elements_per_item"),
        time_per_item_s=estimate(_values(used.assign(per_item=per_item), "per_item")),
        throughput_per_s=estimate(_values(used, "throughput_per_s")),
        step_s=estimate(_values(used, "step_median_ms", scale=1e-3)),
        latency_p90_s=estimate(_values(used, "lat_p90_ms", scale=1e-3)),
        memory_bytes=memory,
        memory_kind=memory_kind,
        energy_per_item_j=estimate(_values(used, "energy_per_item_j")),
        utilisation=utilisation,
        utilisation_kind=utilisation_kind,
        flops_per_item=_constant(used, "flops_per_item"),
        bytes_per_item=_constant(used, "bytes_per_item"),
        roof_flops_per_s=_constant(used, "roof_flops_per_s"),
        roof_bytes_per_s=_constant(used, "roof_bytes_per_s"),
    )


def per(demand: Demand, unit: str, *, quantity: LogEstimate | None) -> LogEstimate | None:
    """A per-item quantity per `unit`, which is the item's or the element's name."""
    if quantity is None or unit == demand.items_unit:
        return quantity
    if unit != demand.elements_unit or not demand.elements_per_item:
        return None
    return quantity.over(exact(demand.elements_per_item))
