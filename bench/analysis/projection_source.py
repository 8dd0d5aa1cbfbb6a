"""The device that a projection starts from, and the work on it: roofs and operators of a row.

Both as measured there. Where nobody recorded an operator profile the row's own FLOPs and least
bytes stand for one operator, which says less and makes the interval wider.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.projection_roofs import Band, Rate, Roofs
from bench.analysis.row_figures import median_of
from bench.core.errors import UsageError
from bench.hardware.chips import chip
from bench.hardware.operators import Operators
from bench.results.operator_profiles import StoredProfile
from bench.results.schema import Row

_KINDS = {"cpu": "cpu", "cuda": "gpu", "xpu": "gpu", "mps": "gpu"}
"""Kind of chip by torch device type; other accelerators are neural processors."""


def source_roofs(trials: Sequence[Row], *, device: str) -> Roofs | None:
    """Return the device's measured roofs; None where a run did not measure them."""
    flops_per_s = median_of(trials, "roof_flops_per_s")
    bytes_per_s = median_of(trials, "roof_bytes_per_s")
    if flops_per_s is None or bytes_per_s is None:
        return None
    row = trials[0]
    try:
        found = chip(str(row["chip"])) if row.get("chip") else None
    except UsageError:  # a row of a newer catalogue
        found = None
    basis = "measured here"
    return Roofs(
        name=found.id if found is not None else device,
        kind=_KINDS.get(str(row.get("device_type")), "npu"),
        vendor=None if row.get("device_vendor") is None else str(row["device_vendor"]),
        dtype=str(row["dtype"]),
        chip=found,
        matrix=Rate(per_s=Band(low=flops_per_s, high=flops_per_s), basis=basis),
        memory=Rate(per_s=Band(low=bytes_per_s, high=bytes_per_s), basis=basis),
    )


def source_operators(
    trials: Sequence[Row], *, step_s: float, items: float, profile: StoredProfile | None
) -> tuple[Operators, ...]:
    """Profile laid over the measured step, or the row's own work as a single operator.

    `items` is what one step did; nothing where not even the row's work is known.
    """
    if profile is not None:
        return profile.scaled_to(step_s)
    flops, moved = median_of(trials, "flops_per_item"), median_of(trials, "bytes_per_item")
    if flops is None and moved is None:
        return ()
    whole = Operators(
        kind="gemm",
        dtype=str(trials[0]["dtype"]),
        calls=0,
        flops=(flops or 0.0) * items,
        bytes=(moved or 0.0) * items,
        least_bytes=(moved or 0.0) * items,
        time_s=step_s,
    )
    return (whole,)
