"""The device that a projection starts from, and the work on it: roofs and operators of a row.

Both as measured there. Where nobody recorded an operator profile the row's own FLOPs and least
bytes stand for one operator, which says less and makes the interval wider.
"""

from __future__ import annotations

from bench.analysis.projection.roofs import Roofs, band
from bench.analysis.trials.configuration import Trials
from bench.core.errors import UsageError
from bench.hardware.chips import chip
from bench.hardware.operators import Operators
from bench.results.operator_profiles import StoredProfile

_KINDS = {"cpu": "cpu", "cuda": "gpu", "xpu": "gpu", "mps": "gpu"}
"""Kind of chip by torch device type; other accelerators are neural processors."""


def source_roofs(trials: Trials) -> Roofs | None:
    """Return the device's measured roofs; None where a run did not measure them."""
    flops_per_s = trials.median("roof_flops_per_s")
    bytes_per_s = trials.median("roof_bytes_per_s")
    if flops_per_s is None or bytes_per_s is None:
        return None
    try:
        found = chip(trials.text("chip")) if trials.text("chip") else None
    except UsageError:  # a row of a newer catalogue
        found = None
    return Roofs(
        name=found.id if found is not None else trials.text("device_name"),
        kind=_KINDS.get(trials.text("device_type"), "npu"),
        vendor=trials.text("device_vendor") or None,
        dtype=trials.text("dtype"),
        chip=found,
        matrix=band(flops_per_s, basis="measured here"),
        memory=band(bytes_per_s, basis="measured here"),
    )


def source_operators(
    trials: Trials, *, step_s: float, items: float, profile: StoredProfile | None
) -> tuple[Operators, ...]:
    """Profile laid over the measured step, or the row's own work as a single operator.

    `items` is what one step did; nothing where not even the row's work is known.
    """
    if profile is not None:
        return profile.scaled_to(step_s)
    flops, moved = trials.median("flops_per_item"), trials.median("bytes_per_item")
    if flops is None and moved is None:
        return ()
    whole = Operators(
        kind="gemm",
        dtype=trials.text("dtype"),
        calls=0,
        flops=(flops or 0.0) * items,
        bytes=(moved or 0.0) * items,
        least_bytes=(moved or 0.0) * items,
        time_s=step_s,
    )
    return (whole,)
