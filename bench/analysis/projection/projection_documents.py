"""What `bench project --json` prints: projections, chips for a target, the score of the method.

One document each, in which every figure that was not measured is marked as projected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.analysis.projection.measured import BOUND, Start
from bench.analysis.projection.projected import Projected
from bench.analysis.projection.roofs import Unknown
from bench.analysis.projection.scoring import Scored, summaries
from bench.analysis.projection.sizing import Choice, Target, undecided
from bench.core.log_estimate import LogEstimate

if TYPE_CHECKING:
    from bench.analysis.projection.clusters import ClusterStep


def _picked(one: object, *names: str) -> dict[str, object]:
    return {name: getattr(one, name) for name in names}


def projection_document(
    projected: Sequence[Projected],
    refused: Sequence[Unknown],
    left_out: Sequence[Unknown],
    *,
    steps: float | None = None,
) -> dict[str, object]:
    """One document: what is projected, what is not and why; a training has its time for `steps`."""
    return {
        "kind": "projected",
        "steps": steps,
        "projections": [
            {
                "from": _start(one.measured),
                "limited": [_limited(*less) for less in one.measured.limited],
                "chip": one.chip.id,
                **_picked(one, "dtype", "devices", "link", "batch"),
                **_figures(one),
                "projected_total_s": (total_s := one.training_s(steps)) and vars(total_s),
                "items_unit": one.measured.items_unit,
                **_picked(one, "binds", "shares", "basis", "notes", "narrowing"),
            }
            for one in projected
        ],
        "not_projected": [_picked(one, "workload", "chip", "reason") for one in refused],
        "left_out": [_picked(one, "workload", "reason") for one in left_out],
    }


def _figures(one: Projected) -> dict[str, object]:
    return {
        "projected_time_s": vars(one.time_s),
        "projected_throughput_per_s": vars(one.throughput_per_s),
    }


def _start(measured: Start) -> dict[str, object]:
    which = ("workload", "size", "config_hash", "device")
    return {
        **_picked(measured, *which, "num_trials", "step_s", "throughput_per_s"),
        "dtype": measured.roofs.dtype,
        "has_operator_profile": measured.has_profile,
    }


def _limited(limit: str, rate: LogEstimate) -> dict[str, object]:
    """What the same device did with less of it: measured, and beside the projection."""
    low, high = rate.interval or (None, None)
    return {
        "kind": "measured",
        "chip_limit": limit,
        "num_trials": rate.num,
        "throughput_per_s": {"low": low, "mid": rate.value, "high": high},
        "note": BOUND,
    }


def sizing_document(
    target: Target, start: Start, choices: Sequence[Choice], missed: Sequence[Unknown]
) -> dict[str, object]:
    """One document: what would meet a target, in order, and what would not."""
    return {
        "kind": "projected",
        "target": vars(target),
        "waiting_basis": start.times.basis if target.limit_s and start.times else None,
        "from": _start(start),
        "choices": [
            {
                "chip": one.projected.chip.id,
                **_picked(one.projected, "dtype", "devices", "link"),
                "devices_range": one.devices,
                **_figures(one.projected),
                "projected_total_s": target.num_items
                and vars(one.projected.throughput_per_s.inverse(target.num_items)),
                "nominal_w": one.watts,
                "restricted_by": one.restricted_by,
                "narrowing": one.projected.narrowing,
            }
            for one in choices
        ],
        "order_undecided": undecided(choices),
        "not_met": [_picked(one, "chip", "reason") for one in missed],
    }


def score_document(scored: Sequence[Scored]) -> dict[str, object]:
    """One document: every published ratio, and what they sum up to."""
    return {
        "kind": "projected",
        "summaries": [vars(one) for one in summaries(scored)],
        "points": [
            {
                **_picked(one.point, "chip_a", "chip_b", "phase", "net", "kind", "num_devices"),
                **_picked(one.point, "dtype_a", "dtype_b"),
                "published_ratio": one.ratio,
                "projected_ratio": one.projected and vars(one.projected),
                "error_frac": one.error,
                "is_inside": one.is_inside if one.projected is not None else None,
                "by": "operator mix" if one.by_mix else "roofs",
                "is_same_silicon": one.is_same_silicon,
                "reason": one.reason or None,
                **_picked(one.point, "note", "point_id"),
            }
            for one in scored
        ],
    }


def cluster_document(steps: Sequence[ClusterStep], notes: Sequence[str]) -> dict[str, object]:
    """Steps on clusters, in base units."""
    return {
        "kind": "projected",
        "steps": [
            {
                "net": one.job.net.name,
                "chip": one.cluster.chip.id,
                "devices": one.cluster.devices,
                "link": one.cluster.model.topology.name if one.cluster.model else "",
                "dtype": one.cluster.dtype,
                "tp": one.job.layout.tensor,
                "pp": one.job.layout.pipeline,
                "dp": one.job.layout.data,
                "schedule": one.job.schedule,
                "micro_batch": one.job.micro_batch,
                "global_batch": one.job.step_tokens // one.job.net.sequence,
                "recompute": one.job.recompute,
                "projected_step_s": vars(one.time_s),
                "projected_tokens_per_s": vars(one.tokens_per_s),
                "projected_mfu_frac": one.mfu and vars(one.mfu),
                "projected_memory_bytes": vars(one.memory_bytes),
                "fits": one.fits,
                "parts": vars(one.parts),
            }
            for one in steps
        ],
        "notes": list(notes),
    }
