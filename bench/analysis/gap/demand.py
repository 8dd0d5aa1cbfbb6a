"""What one phase of a workload asks of one device: time, work, traffic, memory, energy per item.

Read off the usable trials of a setting; time, energy and memory carry their spread, work and
traffic are formulas. From them follows where the phase lies under the device's measured roofline.
Blank stays None: nothing is borrowed from another device or guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.trials.configuration import Trials, gather
from bench.analysis.trials.estimates import LogEstimate, exact
from bench.analysis.trials.identity import DEVICE, LAYOUT
from bench.results.schema import Row

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
"""What two phases share when their ratio compares like with like, beside the workload's net."""
_MEMORY = {"mem_alloc_peak_bytes": "tensors on the device", "rss_peak_bytes": "process"}
_UTILISATION = {"roof_frac": "of measured roof", "mfu_frac": "of datasheet peak"}
_FORMULAS = (
    "elements_per_item",
    "flops_per_item",
    "bytes_per_item",
    "roof_flops_per_s",
    "roof_bytes_per_s",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """One phase of one setting on one device."""

    trials: Trials
    setting: tuple[str, ...]
    items_unit: str
    elements_unit: str
    """What an item is made of."""
    elements_per_item: float | None
    throughput_per_s: LogEstimate | None
    """Items over the whole window."""
    energy_per_item_j: LogEstimate | None
    energy_scope: str
    """What the energy covers, and who counted it."""
    memory_bytes: LogEstimate | None
    """Peak of one step."""
    memory_kind: str
    """What that is the peak of."""
    utilisation: LogEstimate | None
    """Share of what the device could do."""
    utilisation_kind: str
    """What that is a share of."""
    flops_per_item: float | None
    """Model FLOPs, by formula."""
    bytes_per_item: float | None
    """Least memory traffic, by formula."""
    roof_flops_per_s: float | None
    """Measured on the device, as the next."""
    roof_bytes_per_s: float | None

    @property
    def name(self) -> str:
        """`imaging-train`."""
        return self.trials.text("workload")

    @property
    def phase(self) -> str:
        """`train`."""
        return self.trials.phase

    @property
    def device(self) -> str:
        """Device's name."""
        return self.trials.text("device_name")

    @property
    def num_trials(self) -> int:
        """Trials that count."""
        return len(self.trials.used)

    @property
    def time_per_item_s(self) -> LogEstimate | None:
        """Median step time per item."""
        return self.trials.time_per_item_s

    @property
    def flops_per_byte(self) -> float | None:
        """Arithmetic intensity: model FLOPs over least memory traffic."""
        return _over(self.flops_per_item, self.bytes_per_item)

    @property
    def ridge_flops_per_byte(self) -> float | None:
        """Intensity at which this device's measured roofs meet."""
        return _over(self.roof_flops_per_s, self.roof_bytes_per_s)

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
        intensity, flops_per_s = self.flops_per_byte, self.roof_flops_per_s
        if not intensity or not flops_per_s or not self.roof_bytes_per_s:
            return None
        if self.throughput_per_s is None:
            return None
        allowed = min(flops_per_s, intensity * self.roof_bytes_per_s)
        return self.throughput_per_s.value * (self.flops_per_item or 0.0) / allowed


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def is_several(row: Row) -> bool:
    """Whether a row is of several devices or over a modelled link."""
    count = row.get("device_count")
    return bool(row.get("link")) or (isinstance(count, int) and count > 1)


def demands(rows: Sequence[Row]) -> list[Demand]:
    """Every phase on every device, also those without a usable trial."""
    return [_demand(trials) for trials in gather(rows, by=("workload", *SETTING, *DEVICE))]


def setting_of(trials: Trials) -> tuple[str, ...]:
    """Net and how it was run: equal in the phases whose ratio compares like with like."""
    return trials.net, *map(trials.text, SETTING)


def _demand(trials: Trials) -> Demand:
    memory_bytes, memory_kind = _first_of(trials, _MEMORY)
    utilisation, utilisation_kind = _first_of(trials, _UTILISATION)
    return Demand(
        trials=trials,
        setting=setting_of(trials),
        items_unit=trials.agreed("items_unit"),
        elements_unit=trials.agreed("elements_unit"),
        throughput_per_s=trials.estimate("throughput_per_s"),
        energy_per_item_j=trials.estimate("energy_per_item_j"),
        energy_scope=" ".join(map(trials.agreed, ("energy_scope", "energy_source"))).strip(),
        memory_bytes=memory_bytes,
        memory_kind=memory_kind,
        utilisation=utilisation,
        utilisation_kind=utilisation_kind,
        **{name: trials.median(name) for name in _FORMULAS},
    )


def _first_of(trials: Trials, columns: dict[str, str]) -> tuple[LogEstimate | None, str]:
    """Estimate by the first column that is measured, and what to call it."""
    found = ((trials.estimate(column), name) for column, name in columns.items())
    return next((pair for pair in found if pair[0] is not None), (None, ""))


def per(demand: Demand, unit: str, *, quantity: LogEstimate | None) -> LogEstimate | None:
    """A per-item quantity per `unit`, which is the item's or the element's name."""
    if quantity is None or unit == demand.items_unit:
        return quantity
    if unit != demand.elements_unit or not demand.elements_per_item:
        return None
    return quantity.over(exact(demand.elements_per_item))
