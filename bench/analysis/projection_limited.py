"""What less of the same device did (`--chip-limit`): measured, and set beside a projection.

Such rows are no start, because no roof of the limited device is known. They bracket a projection
that starts from the whole one. What the limit does not name (bandwidth, caches, clocks) stays that
device's, so they are never another chip's figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.estimates import LogEstimate, estimate
from bench.analysis.identity import CONFIGURATION, DEVICE
from bench.analysis.row_figures import number
from bench.results.schema import Row, Value

_TERMS = (*CONFIGURATION, "grad_accum", *DEVICE)
BOUND = (
    "less of a device is no other chip: what a limit does not name (bandwidth, caches, clocks) "
    "stays whole, so where memory holds the work it is an upper bound for a chip cut down alike"
)

Terms = tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Limited:
    """One configuration on part of the device that it was also measured on whole."""

    limit: str
    """As granted: `this device with 72 SMs (78 asked), 24.0 GB of memory`."""
    throughput_per_s: LogEstimate
    """Items per second, from each trial's median step."""


def terms_of(row: Row) -> Terms:
    """What a limited row and a whole device's must share; both are of one device, and real."""
    return tuple(row.get(name) for name in _TERMS)


def rate_of(row: Row) -> float | None:
    """Items per second of a trial, from its median step; None where that was not measured."""
    step_ms, items, steps = (number(row, name) for name in ("step_median_ms", "items", "steps"))
    if step_ms is None or items is None or steps is None:
        return None
    return items / steps / (step_ms * 1e-3)


def limited_of(rows: Sequence[Row]) -> dict[Terms, tuple[Limited, ...]]:
    """Gather usable rows with a chip limit by what they ran; rows without a step time are not."""
    rates: dict[Terms, dict[str, list[float]]] = {}
    for row in rows:
        if (rate := rate_of(row)) is not None:
            by_limit = rates.setdefault(terms_of(row), {})
            by_limit.setdefault(str(row["chip_limit"]), []).append(rate)
    return {
        terms: tuple(
            Limited(limit=limit, throughput_per_s=told)
            for limit, values in by_limit.items()
            if (told := estimate(values)) is not None
        )
        for terms, by_limit in rates.items()
    }
