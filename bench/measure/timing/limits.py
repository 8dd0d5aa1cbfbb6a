"""How long a trial warms up and measures, and the named profiles.

A window has at least 20 steps and 10 s (so that an energy counter that ticks every 100 ms is read
to 1-2 %) and is extended until the mean is known to 1 %, at most to 30 s; a warm-up has at least 5
steps and 2 s (5 s on an accelerator) and ends within 60 s. On a CPU, where steps settle sooner and
a default run must end within minutes, these caps are 15 s and 12 s unless the profile is rigorous.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one trial."""

    warmup_min_steps: int = 5
    warmup_min_s: float = 2.0
    warmup_max_steps: int = 200
    warmup_steps_cap_s: float = 10.0
    """The cap on steps holds only after this time."""
    warmup_max_s: float = 12.0
    window_min_steps: int = 20
    window_min_s: float = 10.0
    window_max_s: float = 15.0
    """The window is not extended for precision beyond this."""
    window_hard_s: float = 120.0
    """The window ends here even with fewer than the minimum of steps."""
    target_half_width_frac: float = 0.01
    is_smoke: bool = False
    """Shows that it runs: nothing is long enough to be a measurement."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How many trials, and each one's limits."""

    name: str
    min_trials: int
    max_trials: int
    """Trials stop in between once the interval of the mean is within `target_half_width_frac`."""
    budget_s: float
    """Time for one configuration when --budget does not say; never cuts below `min_trials`."""
    limits: Limits
    target_half_width_frac: float = 0.02


_SMOKE = Limits(
    warmup_min_steps=1,
    warmup_min_s=0.0,
    warmup_max_steps=1,
    warmup_steps_cap_s=0.0,
    warmup_max_s=5.0,
    window_min_steps=3,
    window_min_s=0.0,
    window_max_s=0.0,
    window_hard_s=30.0,
    is_smoke=True,
)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="smoke", min_trials=1, max_trials=1, budget_s=60, limits=_SMOKE),
        Profile(name="quick", min_trials=1, max_trials=1, budget_s=90, limits=Limits()),
        Profile(name="default", min_trials=3, max_trials=5, budget_s=180, limits=Limits()),
        Profile(
            name="rigorous",
            min_trials=6,
            max_trials=10,
            budget_s=1200,
            limits=Limits(warmup_max_s=60.0, window_max_s=30.0),
        ),
    )
}


def for_device(limits: Limits, *, is_accelerator: bool) -> Limits:
    """Accelerators warm up longer: clocks and caches of kernels settle within seconds."""
    if limits.is_smoke or not is_accelerator:
        return limits
    return replace(limits, warmup_min_s=5.0, warmup_max_s=60.0, window_max_s=30.0)


def within_budget(limits: Limits, *, trial_s: float) -> Limits:
    """Shrink warm-up and extension, never the minimum window, so that a trial takes `trial_s`."""
    if limits.is_smoke:
        return limits
    warmup_max_s = max(limits.warmup_min_s, min(limits.warmup_max_s, 0.3 * trial_s))
    window_max_s = max(limits.window_min_s, min(limits.window_max_s, 0.5 * trial_s))
    return replace(limits, warmup_max_s=warmup_max_s, window_max_s=window_max_s)
