"""What a device says about itself while it works: power, heat, clocks, memory.

One `Sample` is one moment, one `Baseline` what holds before a trial. Every field is None where the
device, driver or permission does not give it. Nothing here touches torch, so that the parent of a
trial can sample while the trial's own process computes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

FOREIGN_GPU_BYTES = 500 * 2**20
FOREIGN_GPU_FRAC = 0.05
THERMAL_REASONS = frozenset({"hw_thermal", "sw_thermal"})
THROTTLE_REASONS = THERMAL_REASONS | {"hw_slowdown", "power_brake"}
"""Slow-downs that spoil a trial. `sw_power_cap` is not one: large GPUs run at their limit."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A device at one moment."""

    time_s: float
    """time.monotonic(), which all processes of a machine share."""
    power_w: float | None = None
    """Instantaneous where the device can say so; some older ones give a one-second mean."""
    energy_j: float | None = None
    """Hardware counter since an arbitrary start."""
    temperature_c: float | None = None
    sm_clock_hz: float | None = None
    throttle_reasons: frozenset[str] | None = None
    """Why clocks are limited: THROTTLE_REASONS, sw_power_cap, app_clocks, sync_boost, ..."""
    used_bytes: int | None = None
    """Memory in use on the device, by anyone."""
    utilization_frac: float | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    """Fields for which the driver gave what no device can have, and that."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A device at rest: read before the trial's context exists, and once more after it."""

    used_bytes: int | None = None
    utilization_frac: float | None = None
    power_limit_w: float | None = None
    power_limit_default_w: float | None = None
    driver_version: str | None = None
    ecc_uncorrected: int | None = None
    """Uncorrected memory errors since the driver was loaded."""
    hot_s: float | None = None
    """Time limited by heat since the driver was loaded; catches what sampling misses."""
    sm_clock_max_hz: float | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    has_persistence: bool | None = None
    has_mig: bool | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


class Telemetry:
    """A reader bound to one device."""

    scope = "gpu"
    """What power and energy cover: gpu, module, package or soc."""

    @cached_property
    def available(self) -> tuple[str, ...]:
        """What this device gives, tried once, for `Device.telemetry`."""
        sample = self.sample()
        values = {
            "power": sample.power_w,
            "energy": sample.energy_j,
            "temperature": sample.temperature_c,
            "sm_clock": sample.sm_clock_hz,
            "throttle": sample.throttle_reasons,
            "memory": sample.used_bytes,
            "ecc": self.baseline().ecc_uncorrected,
        }
        return tuple(name for name, value in values.items() if value is not None)

    def sample(self, *, with_memory: bool = True) -> Sample:
        """Read the device now; memory and utilisation cost a call each and can be left out."""
        raise NotImplementedError

    def baseline(self) -> Baseline:
        """Read the slow-changing facts; tens of milliseconds, so never inside a window."""
        return Baseline()

    def close(self) -> None:
        """Let go of the driver's library."""


def is_in_use(rest: Sample | Baseline) -> bool:
    """Whether something holds memory of the device or computes on it."""
    is_busy = (rest.utilization_frac or 0.0) > FOREIGN_GPU_FRAC
    return is_busy or (rest.used_bytes or 0) > FOREIGN_GPU_BYTES


def scaled(value: float | None, factor: float) -> float | None:
    """Convert a reading to base units; a missing one stays missing."""
    return None if value is None else value * factor
