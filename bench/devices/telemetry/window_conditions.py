"""Heat, clocks and limits during a measured window: the facts a row's validity is judged from.

Shares are shares of samples. What sampling misses is in the driver's own violation counters, which
`violations_s` compares before and after. Nothing here looks at how long the steps took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.devices.telemetry.common import THROTTLE_REASONS, Baseline, Sample


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the device was like during a window; None where it did not say."""

    temp_start_c: float | None = None
    temp_max_c: float | None = None
    sm_clock_mean_hz: float | None = None
    sm_clock_min_hz: float | None = None
    throttle_frac: float | None = None
    """Share of samples with any slow-down that spoils a trial."""
    power_brake_frac: float | None = None
    power_limited_frac: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    """Every reason seen, in alphabetical order; harmless ones included."""


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def window_conditions(samples: Sequence[Sample], *, start_s: float, end_s: float) -> Conditions:
    """Sum up the samples that lie in the window; the first temperature may be from just before."""
    inside = [one for one in samples if start_s <= one.time_s <= end_s]
    temps_c = [one.temperature_c for one in inside if one.temperature_c is not None]
    before_c = [
        one.temperature_c
        for one in samples
        if one.time_s <= start_s and one.temperature_c is not None
    ]
    clocks_hz = [one.sm_clock_hz for one in inside if one.sm_clock_hz is not None]
    reasons = [one.throttle_reasons for one in inside if one.throttle_reasons is not None]
    limited = [one.power_limited for one in inside if one.power_limited is not None]
    return Conditions(
        temp_start_c=next(iter(before_c[-1:] + temps_c[:1]), None),
        temp_max_c=max(temps_c, default=None),
        sm_clock_mean_hz=fmean(clocks_hz) if clocks_hz else None,
        sm_clock_min_hz=min(clocks_hz, default=None),
        throttle_frac=_share([bool(seen & THROTTLE_REASONS) for seen in reasons]),
        power_brake_frac=_share(["power_brake" in seen for seen in reasons]),
        power_limited_frac=_share(limited),
        throttle_reasons=tuple(sorted(frozenset().union(*reasons))),
    )


def violations_s(before: Baseline, *, after: Baseline) -> Mapping[str, float]:
    """Seconds spent limited between two baselines, by cause; a cause that was reset is left out."""
    return {
        cause: after.violation_s[cause] - earlier_s
        for cause, earlier_s in before.violation_s.items()
        if after.violation_s.get(cause, -1.0) >= earlier_s
    }
