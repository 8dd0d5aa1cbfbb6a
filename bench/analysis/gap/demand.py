"""What one phase of a workload asks of one device: time, work, traffic, memory, energy per item.

Read off the usable trials of a setting; time, energy and memory carry their spread, work and
traffic are formulas. From them follows where the phase lies under the device's measured roofline.
Blank stays None: nothing is borrowed from another device or guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """One phase of one setting on one device."""

    trials: Trials

    @cached_property
    def setting(self) -> tuple[str, ...]:
        """Net and how it was run: equal in the phases whose ratio compares like with like."""
        return self.trials.net, *map(self.trials.text, SETTING)

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
    def items_unit(self) -> str:
        """What an item is."""
        return self.trials.agreed("items_unit")

    @property
    def elements_unit(self) -> str:
        """What an item is made of."""
        return self.trials.agreed("elements_unit")

    @property
    def elements_per_item(self) -> float | None:
        """How many of them."""
        return self.trials.median("elements_per_item")

    @property
    def energy_scope(self) -> str:
        """What the energy covers, and who counted it."""
        words = (self.trials.agreed("energy_scope"), self.trials.agreed("energy_source"))
        return " ".join(words).strip()

    @property
    def time_per_item_s(self) -> LogEstimate | None:
        """Median step time per item."""
        return self.trials.time_per_item_s

    @cached_property
    def throughput_per_s(self) -> LogEstimate | None:
        """Items per second over the whole window."""
        return self.trials.estimate("throughput_per_s")

    @property
    def latency_p90_s(self) -> LogEstimate | None:
        """90th percentile of a step."""
        return self.trials.estimate("lat_p90_ms", scale=1e-3)

    @property
    def median_step_s(self) -> LogEstimate | None:
        """Median step."""
        return self.trials.estimate("step_median_ms", scale=1e-3)

    @cached_property
    def energy_per_item_j(self) -> LogEstimate | None:
        """Joules per item."""
        return self.trials.estimate("energy_per_item_j")

    @property
    def memory_bytes(self) -> LogEstimate | None:
        """Peak of one step."""
        return self._memory[0]

    @property
    def memory_kind(self) -> str:
        """What that is the peak of."""
        return self._memory[1]

    @cached_property
    def _memory(self) -> tuple[LogEstimate | None, str]:
        return self._first_of(_MEMORY)

    @property
    def utilisation(self) -> LogEstimate | None:
        """Share of what the device could do."""
        return self._utilisation[0]

    @property
    def utilisation_kind(self) -> str:
        """What that is a share of."""
        return self._utilisation[1]

    @cached_property
    def _utilisation(self) -> tuple[LogEstimate | None, str]:
        return self._first_of(_UTILISATION)

    def _first_of(self, columns: dict[str, str]) -> tuple[LogEstimate | None, str]:
        """Estimate by the first column that is measured, and what to call it."""
        for column, name in columns.items():
            found = self.trials.estimate(column)
            if found is not None:
                return found, name
        return None, ""

    @property
    def flops_per_item(self) -> float | None:
        """Model FLOPs, by formula."""
        return self.trials.median("flops_per_item")

    @property
    def bytes_per_item(self) -> float | None:
        """Least memory traffic, by formula."""
        return self.trials.median("bytes_per_item")

    @property
    def roof_flops_per_s(self) -> float | None:
        """Measured compute roof of the device."""
        return self.trials.median("roof_flops_per_s")

    @property
    def roof_bytes_per_s(self) -> float | None:
        """Measured bandwidth roof of the device."""
        return self.trials.median("roof_bytes_per_s")

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


def is_several(row: Row) -> bool:
    """Whether a row is of several devices or over a modelled link."""
    count = row.get("device_count")
    return bool(row.get("link")) or (isinstance(count, int) and count > 1)


def demands(rows: Sequence[Row]) -> list[Demand]:
    """Every phase on every device, also those without a usable trial."""
    found = gather(rows, by=("workload", *SETTING, *DEVICE))
    return [Demand(trials=trials) for trials in found]


def per(demand: Demand, unit: str, *, quantity: LogEstimate | None) -> LogEstimate | None:
    """A per-item quantity per `unit`, which is the item's or the element's name."""
    if quantity is None or unit == demand.items_unit:
        return quantity
    if unit != demand.elements_unit or not demand.elements_per_item:
        return None
    return quantity.over(exact(demand.elements_per_item))
