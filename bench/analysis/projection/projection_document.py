"""What `bench project --json` prints: every figure marked as projected, with its reasons."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.projection.measured import BOUND, LeftOut, Limited, Start
from bench.analysis.projection.projected import NotProjected, Projected
from bench.analysis.projection.sizing import Choice, NotMet, Target, undecided


def projection_document(
    told: Sequence[Projected], refused: Sequence[NotProjected], left_out: Sequence[LeftOut]
) -> dict[str, object]:
    """One document: what is projected, what is not and why."""
    return {
        "kind": "projected",
        "projections": [_projected(one) for one in told],
        "not_projected": [
            {"workload": one.measured.workload, "chip": one.chip.id, "reason": one.reason}
            for one in refused
        ],
        "left_out": [vars(one) for one in left_out],
    }


def _start(measured: Start) -> dict[str, object]:
    return {
        "workload": measured.workload,
        "size": measured.size,
        "dtype": measured.dtype,
        "config_hash": measured.config_hash,
        "device": measured.device,
        "num_trials": measured.num_trials,
        "step_s": measured.step_s,
        "throughput_per_s": measured.throughput_per_s,
        "has_operator_profile": measured.has_profile,
    }


def _limited(one: Limited) -> dict[str, object]:
    """What the same device did with less of it: measured, and beside the projection."""
    told = one.throughput_per_s
    low, high = told.interval or (None, None)
    return {
        "kind": "measured",
        "chip_limit": one.limit,
        "num_trials": told.num,
        "throughput_per_s": {"low": low, "mid": told.value, "high": high},
        "note": BOUND,
    }


def _projected(one: Projected) -> dict[str, object]:
    return {
        "from": _start(one.measured),
        "limited": [_limited(less) for less in one.measured.limited],
        "chip": one.chip.id,
        "dtype": one.dtype,
        "devices": one.devices,
        "link": one.link,
        "batch": one.batch,
        "projected_time_s": vars(one.time_s),
        "projected_throughput_per_s": vars(one.throughput_per_s),
        "items_unit": one.measured.items_unit,
        "binds": one.binds,
        "shares": one.shares,
        "basis": one.basis,
        "notes": list(one.notes),
        "narrowing": list(one.narrowing),
    }


def sizing_document(
    target: Target,
    start: Start,
    choices: Sequence[Choice],
    missed: Sequence[NotMet],
) -> dict[str, object]:
    """One document: what would meet a target, in order, and what would not."""
    return {
        "kind": "projected",
        "target": vars(target),
        "from": _start(start),
        "choices": [
            {
                "chip": one.projected.chip.id,
                "devices": one.num_devices,
                "devices_range": None if one.devices is None else list(one.devices),
                "link": one.projected.link,
                "projected_time_s": vars(one.projected.time_s),
                "projected_throughput_per_s": vars(one.projected.throughput_per_s),
                "nominal_w": one.watts,
                "restricted_by": None if one.restricted_by is None else list(one.restricted_by),
                "narrowing": list(one.projected.narrowing),
            }
            for one in choices
        ],
        "order_undecided": undecided(choices),
        "not_met": [{"chip": one.chip.id, "reason": one.reason} for one in missed],
    }
