"""What one phase of a workload asks of one device: time, work, traffic, memory, energy per item.

Read off the usable trials of a setting; time, energy and memory carry their spread, work and
traffic are formulas. From them follows where the phase lies under the device's measured roofline,
and what a whole training needs. Blank stays None: nothing is borrowed from another device or
guessed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.analysis.trials.configuration import PLACE, TERMS, Trials, gather
from bench.core.log_estimate import LogEstimate, exact
from bench.core.units import PERIOD_S
from bench.results.schema import Row

TRAIN = "train"
SETTING = tuple(name for name in TERMS if name not in ("workload", "scenario", *PLACE))
"""What two phases share when their ratio compares like with like, beside the workload's net."""
_OF_A_PROGRAM = ("workload_version", "params_json", "grad_accum")
_MEMORY = {"mem_alloc_peak_bytes": "tensors on the device", "rss_peak_bytes": "process"}
_UTILISATION = {"roof_frac": "of measured roof", "mfu_frac": "of datasheet peak"}


class Counted(Protocol):
    """What says in which units it is counted."""

    @property
    def items_unit(self) -> str: ...  # noqa: D102
    @property
    def elements_unit(self) -> str: ...  # noqa: D102
    @property
    def elements_per_item(self) -> float | None: ...  # noqa: D102


def shared_unit(train: Counted, infer: Counted) -> tuple[str | None, bool]:
    """Return what both count, and whether that is the element of an item and not the item."""
    if train.items_unit and train.items_unit == infer.items_unit:
        return train.items_unit, False
    counted = train.elements_per_item and infer.elements_per_item
    if counted and train.elements_unit and train.elements_unit == infer.elements_unit:
        return train.elements_unit, True
    return None, False


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """One phase of one setting on one device."""

    trials: Trials
    name: str
    """`imaging-train`."""
    device: str
    """Device's name, with the machine where several have such a one."""
    num_trials: int
    """Trials that count."""
    setting: tuple[str, ...]
    items_unit: str
    elements_unit: str
    """What an item is made of."""
    elements_per_item: float | None
    time_per_item_s: LogEstimate | None
    """Median step time per item."""
    throughput_per_s: LogEstimate | None
    """Items over the whole window."""
    items_per_day: LogEstimate | None
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
    flops_per_byte: float | None
    """Arithmetic intensity: model FLOPs over least memory traffic."""
    roof_flops_per_s: float | None
    """Measured on the device, as the next."""
    roof_bytes_per_s: float | None
    ridge_flops_per_byte: float | None
    """Intensity at which these roofs meet."""
    roof: str | None
    """Which of them is the lower one at this intensity: compute or bandwidth."""
    reached_frac: float | None
    """Speed as a share of what the lower roof allows at this intensity."""


def demands(rows: Sequence[Row]) -> list[Demand]:
    """Every phase on every device, also those without a usable trial."""
    return [_demand(trials) for trials in gather(rows, by=("workload", *SETTING, *PLACE))]


def setting_of(trials: Trials) -> tuple[str, ...]:
    """Net and how it was run: equal in the phases whose ratio compares like with like.

    Of a user's own programs the names say which two belong together: each has its own files and
    arguments.
    """
    own = _OF_A_PROGRAM if trials.is_script else ()
    return trials.net, *(trials.text(name) for name in SETTING if name not in own)


def _demand(trials: Trials) -> Demand:
    memory_bytes, memory_kind = _first_of(trials, _MEMORY)
    utilisation, utilisation_kind = _first_of(trials, _UTILISATION)
    time_s = trials.time_per_item_s
    speed = None if time_s is None else exact(1.0).over(time_s)
    work, traffic = map(trials.median, ("flops_per_item", "bytes_per_item"))
    peak, rate = map(trials.median, ("roof_flops_per_s", "roof_bytes_per_s"))
    intensity = work / traffic if work and traffic else None
    ridge = peak / rate if peak and rate else None
    roof, reached = None, None
    if work and intensity and peak and rate and ridge:
        roof = "compute" if intensity >= ridge else "bandwidth"
        # The roof is one device's: what several did together is no share of it.
        if speed and trials.num_devices == 1:
            reached = speed.value * work / min(peak, intensity * rate)
    return Demand(
        trials=trials,
        name=trials.text("workload"),
        device=trials.one_device,
        num_trials=len(trials.used),
        setting=setting_of(trials),
        items_unit=trials.word("items_unit"),
        elements_unit=trials.word("elements_unit"),
        elements_per_item=trials.median("elements_per_item"),
        time_per_item_s=time_s,
        throughput_per_s=speed,
        items_per_day=None if speed is None else speed.times(PERIOD_S["day"]),
        energy_per_item_j=trials.estimate("energy_per_item_j"),
        energy_scope=f"{trials.word('energy_scope')} {trials.word('energy_source')}".strip(),
        memory_bytes=memory_bytes,
        memory_kind=memory_kind,
        utilisation=utilisation,
        utilisation_kind=utilisation_kind,
        flops_per_item=work,
        bytes_per_item=traffic,
        flops_per_byte=intensity,
        roof_flops_per_s=peak,
        roof_bytes_per_s=rate,
        ridge_flops_per_byte=ridge,
        roof=roof,
        reached_frac=reached,
    )


def _first_of(trials: Trials, columns: dict[str, str]) -> tuple[LogEstimate | None, str]:
    found = ((trials.estimate(column), name) for column, name in columns.items())
    return next((pair for pair in found if pair[0] is not None), (None, ""))


def per(demand: Demand, unit: str, *, quantity: LogEstimate | None) -> LogEstimate | None:
    """A per-item quantity per `unit`, which is the item's or the element's name."""
    if quantity is None or unit == demand.items_unit:
        return quantity
    if unit != demand.elements_unit or not demand.elements_per_item:
        return None
    return quantity.over(exact(demand.elements_per_item))


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a whole training is, in items or in optimizer steps, and when it must be done."""

    num_items: float | None = None
    num_steps: float | None = None
    within_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training of stated length."""

    num_items: float
    time_s: LogEstimate
    energy_j: LogEstimate | None
    num_devices: int | None
    """Fewest that meet the deadline, if none waits for another."""


def training(demand: Demand, *, length: Length | None) -> Training | None:
    """Time and energy of a whole training, and devices for its deadline; None where it is none."""
    if demand.throughput_per_s is None or demand.trials.phase != TRAIN or length is None:
        return None
    num_items = length.num_items or (length.num_steps or 0.0) * (demand.trials.items_per_step or 0)
    if not num_items:
        return None
    energy, within_s = demand.energy_per_item_j, length.within_s
    time_s = exact(num_items).over(demand.throughput_per_s)
    num = time_s.value * demand.trials.num_devices / within_s if within_s else None
    return Training(
        num_items=num_items,
        time_s=time_s,
        energy_j=None if energy is None else energy.times(num_items),
        # What a float adds to a whole number is no further device; none is too few.
        num_devices=None if num is None else max(1, math.ceil(num - 1e-9)),
    )
