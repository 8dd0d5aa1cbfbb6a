"""Everything `bench gap` answers, gathered from one frame of rows, and its JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.gap.demand import SETTING, Demand, demands, is_several
from bench.analysis.gap.needs import Load, Share, Training, items_per_day, share, training
from bench.analysis.gap.ratios import TRAIN, DeviceGap, Gap, Missing, device_gaps, find_gaps
from bench.analysis.trials.estimates import LogEstimate
from bench.results.schema import USABLE, Row

_RATIOS = ("time", "flops", "memory", "energy", "utilisation")


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
    plans = [(d, training(d, num_items=num_items)) for d in found if d.phase == TRAIN and num_items]
    needs = [(d, share(d, load=load)) for d in found if d.phase != TRAIN and load]
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
        "demands": [
            {
                **_which(demand),
                "num_trials": demand.num_trials,
                "num_lost": demand.trials.num_lost,
                **_picked(demand, "items_unit", "elements_unit", "elements_per_item"),
                **_picked(demand, "time_per_item_s"),
                "items_per_day": _plain(items_per_day(demand)),
                **_picked(demand, "memory_bytes", "memory_kind", "energy_per_item_j"),
                **_picked(demand, "utilisation", "utilisation_kind"),
                **_picked(demand, "flops_per_item", "bytes_per_item", "flops_per_byte"),
                **_picked(demand, "ridge_flops_per_byte", "roof", "reached_frac"),
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
            }
            for gap in result.gaps
        ],
        "devices": [
            {
                "workload": gap.demand.trials.net,
                **_setting(gap.demand),
                "infer_phase": gap.infer_phase,
                "device_a": gap.device_a,
                "device_b": gap.device_b,
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
                **_picked(plan, "time_s", "energy_j"),
            }
            for demand, plan in result.trainings
        ],
        "shares": [
            {
                **_which(demand),
                **_picked(need, "for_rate", "for_latency", "needed", "because", "is_p90"),
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
        "device_name": demand.device,
        **_setting(demand),
    }


def _setting(demand: Demand) -> dict[str, object]:
    return {name: demand.trials.text(name) or None for name in SETTING}
