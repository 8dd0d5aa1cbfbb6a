"""What `bench gap` says in JSON: the figures of its tables, and what each of them is of."""

from collections.abc import Sequence
from dataclasses import asdict

from bench.analysis.gap.demand import SETTING, Demand
from bench.analysis.gap.gap_result import GapResult
from bench.analysis.gap.served import ServedLoad
from bench.core.log_estimate import LogEstimate

_RATIOS = ("time", "time_at_limit", "flops", "memory", "energy", "utilisation")
_IN_DOCUMENT = (
    "items_unit", "elements_unit", "elements_per_item", "time_per_item_s", "items_per_day",
    "memory_bytes", "memory_kind", "energy_per_item_j", "utilisation", "utilisation_kind",
    "flops_per_item", "bytes_per_item", "flops_per_byte", "ridge_flops_per_byte", "roof",
    "reached_frac",
)  # fmt: skip


def gap_document(result: GapResult, *, commands: Sequence[str]) -> dict[str, object]:
    """One JSON document; a quantity is {value, low, high, num_trials} or null."""
    return {
        "demands": [
            {
                **_which(demand),
                "num_trials": demand.num_trials,
                "num_lost": demand.trials.num_lost,
                **_picked(demand, *_IN_DOCUMENT),
            }
            for demand in result.demands
        ],
        "gaps": [
            {
                **_which(gap.train),
                "train": gap.train.name,
                "infer": gap.infer.name,
                "per": gap.unit,
                "is_per_element": gap.is_per_element,
                **{f"{name}_ratio": _plain(getattr(gap, name)) for name in _RATIOS},
                "published": gap.published and asdict(gap.published),
            }
            for gap in result.gaps
        ],
        "devices": [
            {
                "workload": gap.demand.trials.net,
                **_setting(gap.demand),
                **_picked(gap, "infer_phase", "device_a", "device_b"),
                "train_ratio": _plain(gap.train),
                "infer_ratio": _plain(gap.infer),
                "train_over_infer": _plain(gap.train_over_infer),
            }
            for gap in result.device_gaps
        ],
        "trainings": [
            {
                **_which(demand),
                "items": plan.num_items,
                "items_unit": demand.items_unit,
                **_picked(plan, "time_s", "energy_j", "num_devices"),
            }
            for demand, plan in result.trainings
        ],
        "served": [_served(one) for one in result.served],
        "not_served": list(result.unserved),
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


def _served(one: ServedLoad) -> dict[str, object]:
    middle, *ends = one.sojourns
    return {
        **_which(one.demand),
        "load": one.load.amount,
        "load_per_s": one.load.items_per_s,
        "basis": one.times.basis,
        "no_interval": one.times.no_interval or None,
        **_picked(one, "used_frac", "usable_frac", "share", "carries_per_s", "device_s_per_item"),
        "done_s": middle and vars(middle),
        "done_ends_s": [end and vars(end) for end in ends],
        "mean_waits_by_formula_s": one.mean_waits_s,
        "devices": one.devices[0],
        "devices_range": one.devices[1:],
    }


def _plain(value: object) -> object:
    if not isinstance(value, LogEstimate):
        return None if value == "" else value
    low, high = value.interval or (None, None)
    num_trials = None if value.is_exact else value.num
    return {"value": value.value, "low": low, "high": high, "num_trials": num_trials}


def _picked(one: object, *names: str) -> dict[str, object]:
    return {name: _plain(getattr(one, name)) for name in names}


def _which(demand: Demand) -> dict[str, object]:
    return {
        "workload": demand.name,
        "device_type": demand.trials.text("device_type"),
        "device_name": demand.trials.text("device_name"),
        "machine": demand.trials.machine or None,
        **_setting(demand),
    }


def _setting(demand: Demand) -> dict[str, object]:
    return {name: demand.trials.text(name) or None for name in SETTING}
