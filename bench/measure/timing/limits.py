"""How long a trial warms up and measures, and the named profiles.

Processes differ by more than a long window of one of them removes, so windows are short and trials
many: a window has at least 20 steps and 3 s, and is extended until the mean is known to 1.5 %, to
6 s at most. Where an energy counter that ticks every 100 ms is to be read to 1-2 %, it has at least
10 s, and at most 15 s or, on an accelerator, 30 s. A warm-up has at least 5 steps and 2 s, and ends
within 12 s; on an accelerator 5 s and 60 s.
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
    window_min_s: float = 3.0
    window_max_s: float = 6.0
    """The window is not extended for precision beyond this."""
    window_hard_s: float = 120.0
    """The window ends here even with fewer than the minimum of steps."""
    target_half_width_frac: float = 0.015
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


ENERGY_WINDOW_S = 10.0
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

_QUICK = Limits(warmup_max_s=3.0, window_min_s=2.5, window_max_s=3.0)
_RIGOROUS = Limits(warmup_max_s=60.0, window_max_s=30.0, target_half_width_frac=0.01)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="smoke", min_trials=1, max_trials=1, budget_s=60, limits=_SMOKE),
        Profile(name="quick", min_trials=1, max_trials=1, budget_s=90, limits=_QUICK),
        Profile(name="default", min_trials=3, max_trials=6, budget_s=180, limits=Limits()),
        Profile(name="rigorous", min_trials=6, max_trials=10, budget_s=1200, limits=_RIGOROUS),
    )
}


def for_device(limits: Limits, *, is_accelerator: bool, has_energy: bool) -> Limits:
    """Return the limits with what the device needs.

    Clocks and caches of kernels of an accelerator settle within seconds, and where energy can be
    read the window is long enough for it.
    """
    if limits.is_smoke:
        return limits
    if is_accelerator:
        limits = replace(limits, warmup_min_s=5.0, warmup_max_s=60.0)
    if has_energy:
        most_s = max(limits.window_max_s, 30.0 if is_accelerator else 15.0)
        limits = replace(limits, window_min_s=ENERGY_WINDOW_S, window_max_s=most_s)
    return limits


def within_budget(limits: Limits, *, trial_s: float) -> Limits:
    """Shrink warm-up and extension, never the minimum window, so that a trial takes `trial_s`."""
    if limits.is_smoke:
        return limits
    warmup_max_s = max(limits.warmup_min_s, min(limits.warmup_max_s, 0.3 * trial_s))
    window_max_s = max(limits.window_min_s, min(limits.window_max_s, 0.5 * trial_s))
    return replace(limits, warmup_max_s=warmup_max_s, window_max_s=window_max_s)
