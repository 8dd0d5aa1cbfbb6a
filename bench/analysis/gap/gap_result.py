"""Everything `bench gap` answers, gathered from one frame of rows, and its JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.gap.demand import SETTING, Demand, demands, is_several
from bench.analysis.gap.needs import Load, Share, Training, items_per_day, share, training
from bench.analysis.gap.ratios import TRAIN, DeviceGap, Gap, Missing, device_gaps, find_gaps
from bench.analysis.trials.estimates import LogEstimate
from bench.results.schema import USABLE, Row


@dataclass(frozen=True, kw_only=True)
class GapResult:
    """Demands, their ratios, and what was asked in a user's terms."""

    demands: tuple[Demand, ...]
    gaps: tuple[Gap, ...]
    missing: tuple[Missing, ...]
    device_gaps: tuple[DeviceGap, ...]
    trainings: tuple[tuple[Demand, Training], ...]
    shares: tuple[tuple[Demand, Share], ...]
    num_wide: int = 0
    """Configurations over several devices or a modelled link that were left out."""


def measure_gap(
    rows: Sequence[Row],
    *,
    load: Load | None,
    num_items: float | None,
    has_all_layouts: bool = False,
) -> GapResult:
    """Analyse the rows; `num_items` is the length of a whole training.

    One device is the question, so rows of several devices or over a modelled link are left out
    where one device has usable rows, unless `has_all_layouts`. Layouts are never mixed.
    """
    alone = [row for row in rows if not is_several(row)]
    is_left_out = not has_all_layouts and any(row["status"] in USABLE for row in alone)
    left_out = {row["config_hash"] for row in rows if is_several(row)} if is_left_out else ()
    found = demands(alone if is_left_out else rows)
    gaps, missing = find_gaps(found)
    trains = [demand for demand in found if demand.phase == TRAIN]
    others = [demand for demand in found if demand.phase != TRAIN]
    plans = [(d, training(d, num_items=num_items)) for d in trains] if num_items else []
    needs = [(d, share(d, load=load)) for d in others] if load else []
    return GapResult(
        demands=tuple(found),
        gaps=tuple(gaps),
        missing=tuple(missing),
        device_gaps=tuple(device_gaps(found)),
        trainings=tuple((demand, plan) for demand, plan in plans if plan is not None),
        shares=tuple((demand, need) for demand, need in needs if need is not None),
        num_wide=len(left_out),
    )


def gap_document(result: GapResult, *, commands: Sequence[str]) -> dict[str, object]:
    """One JSON document; a quantity is {value, low, high, num_trials} or null."""
    return {
        "demands": [_demand(demand) for demand in result.demands],
        "gaps": [_gap(gap) for gap in result.gaps],
        "devices": [_device_gap(gap) for gap in result.device_gaps],
        "trainings": [
            {
                **_which(demand),
                "items": plan.num_items,
                "items_unit": demand.items_unit,
                "time_s": _quantity(plan.time_s),
                "energy_j": _quantity(plan.energy_j),
            }
            for demand, plan in result.trainings
        ],
        "shares": [
            {
                **_which(demand),
                "for_rate": _quantity(need.for_rate),
                "for_latency": need.for_latency,
                "needed": need.needed,
                "because": need.because,
                "is_p90": need.is_p90,
            }
            for demand, need in result.shares
        ],
        "num_other_layouts": result.num_wide,
        "missing": [
            {
                **_which(missing.present),
                "lacks": "training" if missing.lacks_training else "inference",
                "tried_and_lost": missing.tried.trials.lost_reasons if missing.tried else None,
                "command": command,
            }
            for missing, command in zip(result.missing, commands, strict=True)
        ],
    }


def _quantity(value: LogEstimate | None) -> dict[str, object] | None:
    if value is None:
        return None
    low, high = value.interval or (None, None)
    return {
        "value": value.value,
        "low": low,
        "high": high,
        "num_trials": None if value.is_exact else value.num,
    }


def _which(demand: Demand) -> dict[str, object]:
    return {
        "workload": demand.name,
        "device_type": demand.trials.text("device_type"),
        "device_name": demand.device,
        **_setting(demand),
    }


def _setting(demand: Demand) -> dict[str, object]:
    return {name: demand.trials.text(name) or None for name in SETTING}


def _demand(demand: Demand) -> dict[str, object]:
    return {
        **_which(demand),
        "num_trials": demand.num_trials,
        "num_lost": demand.trials.num_lost,
        "items_unit": demand.items_unit or None,
        "elements_unit": demand.elements_unit or None,
        "elements_per_item": demand.elements_per_item,
        "time_per_item_s": _quantity(demand.time_per_item_s),
        "items_per_day": _quantity(items_per_day(demand)),
        "memory_bytes": _quantity(demand.memory_bytes),
        "memory_kind": demand.memory_kind or None,
        "energy_per_item_j": _quantity(demand.energy_per_item_j),
        "utilisation": _quantity(demand.utilisation),
        "utilisation_kind": demand.utilisation_kind or None,
        "flops_per_item": demand.flops_per_item,
        "bytes_per_item": demand.bytes_per_item,
        "flops_per_byte": demand.flops_per_byte,
        "ridge_flops_per_byte": demand.ridge_flops_per_byte,
        "roof": demand.roof,
        "reached_frac": demand.reached_frac,
    }


def _gap(gap: Gap) -> dict[str, object]:
    return {
        **_which(gap.train),
        "train": gap.train.name,
        "infer": gap.infer.name,
        "per": gap.unit,
        "is_per_element": gap.is_per_element,
        "time_ratio": _quantity(gap.time),
        "flops_ratio": _quantity(gap.flops),
        "memory_ratio": _quantity(gap.memory),
        "energy_ratio": _quantity(gap.energy),
        "utilisation_ratio": _quantity(gap.utilisation),
    }


def _device_gap(gap: DeviceGap) -> dict[str, object]:
    return {
        "workload": gap.demand.trials.net,
        **_setting(gap.demand),
        "infer_phase": gap.infer_phase,
        "device_a": gap.device_a,
        "device_b": gap.device_b,
        "train_ratio": _quantity(gap.train),
        "infer_ratio": _quantity(gap.infer),
        "train_over_infer": _quantity(gap.train_over_infer),
    }
