"""The gap in a user's terms: items a day, a whole training, one clinic's share of a device.

Plain arithmetic on what was measured, with the interval carried along. A share of a device assumes
that a slice of it is as much slower as it is smaller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.analysis.gap.demand import Demand
from bench.analysis.trials.estimates import LogEstimate, exact
from bench.core.errors import UsageError
from bench.core.units import PERIOD_S


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests that arrive, one item each, and how soon each must be done."""

    items_per_s: float
    latency_s: float | None


@dataclass(frozen=True, kw_only=True)
class Share:
    """Part of one device that a load needs; over 1 is more than one device."""

    for_rate: LogEstimate
    """Items have to be done as fast as they come."""
    for_latency: float | None
    """One step has to be done in time; None when no latency was asked for or measured."""
    is_p90: bool
    """Whether the step's time is its 90th percentile; else its median, for want of steps."""

    @property
    def needed(self) -> float:
        """The larger of the two."""
        return max(self.for_rate.value, self.for_latency or 0.0)

    @property
    def because(self) -> str:
        """Which of the two decides."""
        return "latency" if (self.for_latency or 0.0) > self.for_rate.value else "rate"


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training of stated length."""

    num_items: float
    time_s: LogEstimate
    energy_j: LogEstimate | None


def parse_load(text: str) -> float:
    """Items per second in '200/day', '5/h', '2/s'; `UsageError` for anything else."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*/\s*([a-z]+)\s*", text.lower())
    if match is None or match[2] not in PERIOD_S or float(match[1]) <= 0.0:
        raise UsageError(
            f"--load {text!r} is not a number over 0 per {', '.join(PERIOD_S)}, such as 200/day"
        )
    return float(match[1]) / PERIOD_S[match[2]]


def items_per_day(demand: Demand) -> LogEstimate | None:
    """Items that the whole device does in a day."""
    speed = demand.throughput_per_s
    return None if speed is None else speed.times(PERIOD_S["day"])


def training(demand: Demand, *, num_items: float) -> Training | None:
    """Time and energy of a training that takes in `num_items` items."""
    if demand.throughput_per_s is None:
        return None
    energy = demand.energy_per_item_j
    return Training(
        num_items=num_items,
        time_s=exact(1.0).over(demand.throughput_per_s).times(num_items),
        energy_j=None if energy is None else energy.times(num_items),
    )


def share(demand: Demand, *, load: Load) -> Share | None:
    """Part of the device that `load` needs in this phase."""
    if demand.throughput_per_s is None:
        return None
    p90 = demand.trials.estimate("lat_p90_ms", scale=1e-3)
    step = p90 or demand.trials.estimate("step_median_ms", scale=1e-3)
    is_asked = load.latency_s is not None and step is not None
    return Share(
        for_rate=exact(1.0).over(demand.throughput_per_s).times(load.items_per_s),
        for_latency=step.value / load.latency_s if is_asked else None,  # type: ignore[union-attr,operator]
        is_p90=p90 is not None,
    )
