"""How different the demands of training and inference are, and how that differs between devices.

Phases of one workload share net, precision and parameters, so their ratio is like for like. Where
their items are not the same thing (a patch, a volume) the ratio is per element (a voxel), and says
so. Ratios between devices are taken phase by phase, and so is how far those ratios lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.analysis.gap.demand import Demand, per
from bench.analysis.trials.estimates import LogEstimate, exact
from bench.analysis.trials.identity import DEVICE

TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Training over one inference phase on one device."""

    train: Demand
    infer: Demand
    unit: str | None
    """What time, FLOPs and energy are per; None when the phases count different things."""
    is_per_element: bool
    time: LogEstimate | None
    flops: LogEstimate | None
    memory: LogEstimate | None
    energy: LogEstimate | None
    utilisation: LogEstimate | None


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A half that is not there, so that a gap cannot be shown."""

    present: Demand
    lacks_training: bool
    tried: Demand | None
    """The half's own demand when it ran without a usable trial."""

    @property
    def why_never(self) -> str:
        """Why this half cannot be measured on such terms; '' where it can."""
        fact = self.present.trials.text
        if self.lacks_training:
            return ""
        if "dp" in fact("layout") and fact("parallel") != "fsdp":
            return "copies of a net send nothing in inference: take one device, times their number"
        if fact("mitigation") or fact("grad_accum") not in ("", "1"):
            return "inference has no gradients to send less of, or less often"
        return ""


@dataclass(frozen=True, kw_only=True)
class DeviceGap:
    """Two devices: time per item in training and in an inference phase, B over A."""

    demand: Demand
    """One of the phases, to name what was run."""
    infer_phase: str
    device_a: str
    device_b: str
    train: LogEstimate
    infer: LogEstimate

    @property
    def train_over_infer(self) -> LogEstimate:
        """Over 1: going from A to B costs training more than it costs inference."""
        return self.train.over(self.infer)


def find_gaps(found: Sequence[Demand]) -> tuple[list[Gap], list[Missing]]:
    """Pair the phases of each setting on each device."""
    gaps, missing = [], []
    together: dict[tuple[str, ...], list[Demand]] = {}
    for demand in found:
        key = (*demand.setting, *map(demand.trials.text, DEVICE))
        together.setdefault(key, []).append(demand)
    for phases in together.values():
        usable = [demand for demand in phases if demand.num_trials]
        trains = [demand for demand in usable if demand.phase == TRAIN]
        others = [demand for demand in usable if demand.phase != TRAIN]
        gaps += [_gap(train, infer) for train in trains for infer in others]
        if bool(trains) != bool(others):
            tried = (
                demand
                for demand in phases
                if not demand.num_trials and (demand.phase == TRAIN) == bool(others)
            )
            half = Missing(present=usable[0], lacks_training=bool(others), tried=next(tried, None))
            missing.append(half)
    return gaps, missing


def _shared_unit(train: Demand, infer: Demand) -> tuple[str | None, bool]:
    if train.items_unit and train.items_unit == infer.items_unit:
        return train.items_unit, False
    counted = train.elements_per_item and infer.elements_per_item
    if counted and train.elements_unit and train.elements_unit == infer.elements_unit:
        return train.elements_unit, True
    return None, False


def _ratio(above: LogEstimate | None, below: LogEstimate | None) -> LogEstimate | None:
    return None if above is None or below is None else above.over(below)


def _gap(train: Demand, infer: Demand) -> Gap:
    unit, is_per_element = _shared_unit(train, infer)

    def both(above: LogEstimate | None, below: LogEstimate | None) -> LogEstimate | None:
        if unit is None:
            return None
        return _ratio(per(train, unit, quantity=above), per(infer, unit, quantity=below))

    energy = both(train.energy_per_item_j, infer.energy_per_item_j)
    is_same_memory = train.memory_kind == infer.memory_kind
    is_same_utilisation = train.utilisation_kind == infer.utilisation_kind
    return Gap(
        train=train,
        infer=infer,
        unit=unit,
        is_per_element=is_per_element,
        time=both(train.time_per_item_s, infer.time_per_item_s),
        flops=both(
            *(exact(d.flops_per_item) if d.flops_per_item else None for d in (train, infer))
        ),
        memory=_ratio(train.memory_bytes, infer.memory_bytes) if is_same_memory else None,
        energy=energy if train.energy_scope == infer.energy_scope else None,
        utilisation=_ratio(train.utilisation, infer.utilisation) if is_same_utilisation else None,
    )


def device_gaps(found: Sequence[Demand]) -> list[DeviceGap]:
    """For each setting and each two devices: how the training and inference ratios differ."""
    settings: dict[tuple[str, ...], dict[str, dict[str, LogEstimate]]] = {}
    named: dict[tuple[str, ...], Demand] = {}
    for demand in found:
        if demand.time_per_item_s is not None:
            named.setdefault(demand.setting, demand)
            devices = settings.setdefault(demand.setting, {})
            devices.setdefault(demand.device, {})[demand.phase] = demand.time_per_item_s
    return [
        DeviceGap(
            demand=named[setting],
            infer_phase=phase,
            device_a=a,
            device_b=b,
            train=devices[b][TRAIN].over(devices[a][TRAIN]),
            infer=devices[b][phase].over(devices[a][phase]),
        )
        for setting, devices in settings.items()
        for a, b in combinations(devices, 2)
        if TRAIN in devices[a] and TRAIN in devices[b]
        for phase in devices[a]
        if phase != TRAIN and phase in devices[b]
    ]
