"""Made-up chips, roofs and measured configurations with round figures."""

from dataclasses import replace
from typing import Any

from bench.analysis.projection.measured import Start
from bench.analysis.projection.roofs import Roofs, band
from bench.core.nouns import Chip
from bench.hardware.operators import Operators

CHIP = Chip(
    id="round",
    name="Round",
    vendor="nvidia",
    kind="gpu",
    peak_per_s={"bf16": 400e12, "fp32": 50e12},
    memory_bytes=80e9,
    memory_bytes_per_s=2e12,
    tdp_w=500.0,
    confidence="high",
    sources=(),
    facts={"vector_fp32_flops_per_s": 50e12, "torch_devices": 1, "form_factor": "sxm5",
           "link_topology": "none"},
    derates={"gemm": 1.0, "memory": 1.0},
)  # fmt: skip


SOURCE = Roofs(
    kind="gpu",
    vendor="nvidia",
    dtype="bf16",
    chip=None,
    matrix=band(100e12, basis="measured here"),
    memory=band(1e12, basis="measured here"),
)


def operators(kind: str, *, time_s: float | None, **figures: float) -> Operators:
    return Operators(
        kind=kind,
        dtype="bf16",
        calls=int(figures.get("calls", 1)),
        flops=figures.get("flops", 0.0),
        bytes=figures.get("bytes", 0.0),
        least_bytes=figures.get("least_bytes", figures.get("bytes", 0.0)),
        time_s=time_s,
    )


GEMM = operators("gemm", time_s=1.0, flops=100e12, bytes=1e6)
"""One second at the source's matrix roof."""
COPY = operators("copy", time_s=1.0, bytes=1e12)
"""One second at the source's memory roof."""

MEASURED = Start(
    workload="imaging-train",
    size="base",
    config_hash="c0ffee",
    dtype="bf16",
    device="Source",
    num_trials=3,
    batch=4,
    step_s=2.0,
    step_spread=1.0,
    items_per_step=4.0,
    items_unit="patch",
    roofs=SOURCE,
    operators=(GEMM, COPY),
    has_profile=True,
    overhead_s=0.0,
    num_parameters=10**9,
    memory_bytes=40e9,
)


def measured(**changes: Any) -> Start:
    return replace(MEASURED, **changes)


def chip(**changes: Any) -> Chip:
    facts = {**CHIP.facts, **changes.pop("facts", {})}
    return replace(CHIP, facts=facts, **changes)
