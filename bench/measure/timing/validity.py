"""Whether a trial may be used, and why not.

Judged from the environment and from correctness only, never from the measured time: else the gate
would choose its own answer. The thresholds are several times what a quiet machine shows.
"""

from collections.abc import Iterable

from bench.core.nouns import Status
from bench.devices.host.cpu_noise import (
    FOREIGN_CPU_INVALID_FRAC,
    FOREIGN_CPU_WARN_FRAC,
    STEAL_WARN_FRAC,
)

INVALIDATING = frozenset(
    {
        "thermal_throttle",
        "power_brake",
        "ecc",
        "foreign_cpu_heavy",
        "nonfinite",
        "wrong_output",
        "flops_disagree",
        "over_roof",
        "window_short",
        "few_samples",
        "clock_backwards",
        "device_changed",
        "client_late",
        "load_inconsistent",
        "endpoint_errors_heavy",
        "loadgen_invalid",
    }
)
FAILING = frozenset(
    {"out_of_memory", "unsupported_op", "unsupported_dtype", "timeout", "crashed", "error"}
)
SKIPPING = frozenset({"interrupted", "budget", "link_unresolved", "missing_library"})
LABELS = frozenset(
    {"noisy", "input_bound", "host_bound", "steps_apart"}
    | {"chunks_joined", "no_usage", "client_overhead"}
)
"""What sets the pace, what one window cannot tell, or what is in no figure: they stand."""
_REPEATING = {"nonfinite", "wrong_output", "flops_disagree", "over_roof", "loadgen_invalid"} | {
    "endpoint_errors_heavy"
}
RETRYABLE = INVALIDATING - _REPEATING | {"crashed", "timeout"}
"""Reasons that another attempt may not have; a wrong or refused computation would only repeat."""

OVER_ROOF_FRAC = 1.05
WINOGRAD = 2.25
"""Multiplications that a convolution by Winograd's algorithm F(2x2, 3x3) saves, which libraries of
accelerators use in fp32 (Lavin and Gray, https://arxiv.org/abs/1509.09308)."""
THROTTLE_INVALID_FRAC = 0.01
INPUT_BOUND_FRAC = 0.10
HOST_BOUND_FRAC = 0.5
MIN_SAMPLES = 3

Problems = list[tuple[str, str]]
"""Reason codes of a trial, each with a line in words or ''."""


def status_of(reasons: Iterable[str]) -> Status:
    """Return the gravest status that the reasons call for; OK when there are none but labels."""
    codes = set(reasons)
    if codes & FAILING:
        return "FAILED"
    if codes & SKIPPING:
        return "SKIPPED"
    if codes & INVALIDATING:
        return "INVALID"
    return "WARN" if codes - LABELS else "OK"


def roof_problems(roof_frac: float | None, *, is_accelerator: bool, dtype: str) -> Problems:
    """Whether more was reached than the device can do: then a figure is wrong.

    A processor's roof has a convolution in it, an accelerator's has none.
    """
    most = OVER_ROOF_FRAC * (WINOGRAD if is_accelerator and dtype == "fp32" else 1.0)
    if roof_frac is None or roof_frac <= most:
        return []
    words = f"{100 * roof_frac:,.0f} % of the measured roof: flops_per_item is too high, or the"
    return [("over_roof", f"{words} roof was measured on a busy machine")]


def cpu_reasons(*, foreign_frac: float | None, steal_frac: float | None) -> list[str]:
    """Judge what else used the processor during the window."""
    reasons = []
    if foreign_frac is not None and foreign_frac > FOREIGN_CPU_INVALID_FRAC:
        reasons.append("foreign_cpu_heavy")
    elif foreign_frac is not None and foreign_frac > FOREIGN_CPU_WARN_FRAC:
        reasons.append("foreign_cpu")
    if steal_frac is not None and steal_frac > STEAL_WARN_FRAC:
        reasons.append("steal")
    return reasons
