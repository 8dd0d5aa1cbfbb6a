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
        "window_short",
        "few_samples",
        "clock_backwards",
        "device_changed",
    }
)
FAILING = frozenset(
    {"out_of_memory", "unsupported_op", "unsupported_dtype", "timeout", "crashed", "error"}
)
SKIPPING = frozenset({"interrupted", "budget", "link_unresolved"})
RETRYABLE = INVALIDATING - {"nonfinite", "wrong_output"} | {"crashed", "timeout"}
"""Reasons that another attempt may not have; a wrong or refused computation would only repeat."""

THROTTLE_INVALID_FRAC = 0.01
INPUT_BOUND_FRAC = 0.10
HOST_BOUND_FRAC = 0.5
MIN_SAMPLES = 3

Problems = list[tuple[str, str]]
"""Reason codes of a trial, each with a line in words or ''."""


def status_of(reasons: Iterable[str]) -> Status:
    """Return the gravest status that the reasons call for; OK when there are none."""
    codes = set(reasons)
    if codes & FAILING:
        return "FAILED"
    if codes & SKIPPING:
        return "SKIPPED"
    if codes & INVALIDATING:
        return "INVALID"
    return "WARN" if codes else "OK"


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
