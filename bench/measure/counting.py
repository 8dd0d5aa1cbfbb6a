"""What a step processed: counted from its batch, summed over its micro-batches."""

from __future__ import annotations

from typing import Any

from bench.measure.engine import StepCount
from bench.workload import Phase, Workload


def counted(workload: Workload, phase: Phase, collated: Any) -> StepCount:
    """Return what a collated batch holds; FLOPs are None where the workload does not tell them."""
    items = workload.items(phase, collated)
    per_item = workload.flops_per_item(phase, collated)
    return StepCount(
        items=items,
        elements=workload.elements(phase, collated),
        flops=None if per_item is None else per_item * items,
        data_wait_s=0.0,
    )


def summed(counts: list[StepCount]) -> StepCount:
    """Return what the micro-batches of one step hold together."""
    elements = [count.elements for count in counts if count.elements is not None]
    flops = [count.flops for count in counts if count.flops is not None]
    return StepCount(
        items=sum(count.items for count in counts),
        elements=sum(elements) if len(elements) == len(counts) else None,
        flops=sum(flops) if len(flops) == len(counts) else None,
        data_wait_s=sum(count.data_wait_s for count in counts),
    )
