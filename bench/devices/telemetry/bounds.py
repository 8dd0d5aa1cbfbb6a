"""What a reading of a device can be at all: the bounds of every reader, in base units.

Drivers have values for "unknown" that look like figures: 0 W under WSL, -1 as NVML's
NVML_VALUE_NOT_AVAILABLE, all ones in AMD SMI's fields of 16, 32 and 64 bits. Outside its bounds a
reading is None, with what the driver gave beside it. The bounds are wide: they part the possible
from the impossible, not the usual from the odd.

Sources: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceStructs.html (not available),
https://rocm.docs.amd.com/projects/amdsmi/en/latest/reference/amdsmi-py-api.html (all ones).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from bench.devices.telemetry.common import Baseline, Sample


class PossibleRange(NamedTuple):
    """Least and most of a field, its unit, and how it is called."""

    least: float
    most: float
    unit: str
    word: str


_POWER = 0.1, 1e4, "W"
"""Power on, a device draws something. The catalogue's largest draws 1 kW; a module of four and
eight processor packages stay below 10 kW, too."""
_CLOCK = 1e6, 1e10, "Hz"
"""No processor has run at 10 GHz yet (https://hwbot.org/benchmark/cpu_frequency)."""
_LANES = 1, 32, "lanes"
"""PCI Express Base Specification: links of 1 to 32 lanes."""

BOUNDS: Mapping[str, PossibleRange] = {
    "power_w": PossibleRange(*_POWER, "power"),
    "power_limit_w": PossibleRange(*_POWER, "power limit"),
    "power_limit_default_w": PossibleRange(*_POWER, "default power limit"),
    # 10 kW for 30 years; since when a counter counts is not known, so it may be at 0.
    "energy_j": PossibleRange(0, 1e13, "J", "energy counter"),
    # A device shuts itself down first (https://docs.kernel.org/gpu/amdgpu/thermal.html,
    # temp1_emergency: 115 C on most); 0 is a sensor that is off.
    "temperature_c": PossibleRange(1, 150, "C", "temperature"),
    "sm_clock_hz": PossibleRange(*_CLOCK, "clock"),
    "sm_clock_max_hz": PossibleRange(*_CLOCK, "highest clock"),
    # A hundred times what the largest device has (288 GB).
    "used_bytes": PossibleRange(0, 2**45, "B", "memory in use"),
    "utilization_frac": PossibleRange(0, 1, "of 1", "utilisation"),
    "ecc_uncorrected": PossibleRange(0, 2**31, "errors", "count of memory errors"),
    # Since the driver was loaded: less than 30 years.
    "hot_s": PossibleRange(0, 1e9, "s", "time limited by heat"),
    "pcie_width": PossibleRange(*_LANES, "PCIe width"),
    "pcie_width_max": PossibleRange(*_LANES, "highest PCIe width"),
}
"""By the field's name in `Sample` and `Baseline`."""
_WHOLE = ("used_bytes", "ecc_uncorrected")
TICK_S = 0.2
"""Counters tick every 20 to 100 ms, so a short step may hold the energy of a longer time."""

Readings = TypeVar("Readings", Sample, Baseline)


def is_possible(name: str, value: float) -> bool:
    """Whether a device can have this reading; a field without bounds can be anything."""
    bounds = BOUNDS.get(name)
    return bounds is None or bounds.least <= value <= bounds.most


def bounded(kind: type[Readings], **values: Any) -> Readings:
    """Make readings of these; what no device can have becomes None and is noted in `refused`."""
    refused = {}
    for name, value in values.items():
        if value is not None and not is_possible(name, value):
            bounds = BOUNDS[name]
            refused[name] = f"{value:,.6g} {bounds.unit}" if math.isfinite(value) else "all ones"
            values[name] = None
        elif value is not None and name in _WHOLE:
            values[name] = int(value)
    return kind(**values, refused=refused)


def refused_words(refused: Mapping[str, str]) -> str:
    """Name the fields and what the driver gave."""
    return ", ".join(f"{BOUNDS[name].word} {figure}" for name, figure in refused.items())


def refusals(readings: Sequence[Sample | Baseline]) -> list[str]:
    """Say of each field without any possible value in these readings what the driver gave."""
    given = {name: figure for one in readings for name, figure in one.refused.items()}
    return [
        f"{BOUNDS[name].word} not measured: the driver gives {figure}"
        for name, figure in given.items()
        if all(getattr(one, name) is None for one in readings)
    ]


def is_jump(gained_j: float, *, elapsed_s: float) -> bool:
    """Whether a counter gained more energy than any device draws in that time, or lost some."""
    return not 0 <= gained_j <= BOUNDS["power_w"].most * (elapsed_s + TICK_S)
