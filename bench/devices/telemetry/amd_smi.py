"""Telemetry of AMD devices through AMD SMI, where ROCm has installed its binding.

The binding is optional and not on every machine with a working torch, so a missing one is no error;
nor is one that does not fit its driver. AMD SMI writes 'N/A' or all ones for what a device does not
give, and renames its fields now and then; all end as None here. Left out: throttle reasons, which
it only gives as percentages on some devices.
Source of calls and units: https://rocm.docs.amd.com/projects/amdsmi/en/latest/reference/amdsmi-py-api.html
"""

import time
from contextlib import suppress
from operator import attrgetter
from typing import Any

from bench.core.nouns import Device
from bench.devices.telemetry.common import Baseline, Sample, Telemetry, scaled

_MIB_BYTES = 2**20
_EMPTY = (2**16 - 1, 2**32 - 1, 2**64 - 1)
"""All ones, in the width of the C field: a reading that this device does not have
(https://rocm.docs.amd.com/projects/amdsmi/en/docs-7.1.1/doxygen/docBin/html/structamdsmi__power__info__t.html)."""
_UNFIT = (AttributeError, KeyError, TypeError, ValueError)
"""What the binding raises where its library is of another release."""
_TWO_DIES = ("MI250",)
"""Parts whose dies are a device each to torch, while power and energy are those of the module."""


def import_amdsmi() -> Any | None:
    """Return the binding, started, or None where it or the driver is missing."""
    try:
        import amdsmi

        amdsmi.amdsmi_init()
    except Exception:  # without ROCm, or with another one, it raises whatever ctypes does
        return None
    return amdsmi


def _number(value: Any) -> float | None:
    """Return a reading as a number; 'N/A' and all ones are none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value >= 0 and value not in _EMPTY else None


def _field(answer: Any, *names: str) -> float | None:
    """First of these fields that is a number."""
    found = [_number(answer.get(name)) for name in names] if isinstance(answer, dict) else []
    return next((value for value in found if value is not None), None)


class AmdTelemetry(Telemetry):
    """One AMD device. Its energy counter has been seen frozen, so it is always checked."""

    def __init__(self, smi: Any, *, handle: Any, name: str = "") -> None:
        self.scope = "module" if any(part in name for part in _TWO_DIES) else "gpu"
        self._smi = smi
        self._handle = handle

    def _ask(self, function: str, *members: str) -> Any | None:
        """One call; its arguments are members of the binding's enumerations."""
        try:
            arguments = [attrgetter(member)(self._smi) for member in members]
            return getattr(self._smi, function)(self._handle, *arguments)
        except (self._smi.AmdSmiException, *_UNFIT):
            return None

    def _temperature_c(self) -> float | None:
        for kind in ("HOTSPOT", "EDGE"):
            members = (f"AmdSmiTemperatureType.{kind}", "AmdSmiTemperatureMetric.CURRENT")
            if celsius := _number(self._ask("amdsmi_get_temp_metric", *members)):
                return celsius
        return None

    def _clock_hz(self, *names: str) -> float | None:
        return scaled(_field(self._ask("amdsmi_get_clock_info", "AmdSmiClkType.GFX"), *names), 1e6)

    def sample(self, *, with_memory: bool = True) -> Sample:
        """Read the device now."""
        time_s = time.monotonic()
        energy = self._ask("amdsmi_get_energy_count")
        count = _field(energy, "energy_accumulator", "power")
        resolution_uj = _field(energy, "counter_resolution")
        power = self._ask("amdsmi_get_power_info")
        power_w = _field(power, "current_socket_power", "socket_power", "average_socket_power")
        usage = self._ask("amdsmi_get_gpu_vram_usage") if with_memory else None
        activity = self._ask("amdsmi_get_gpu_activity") if with_memory else None
        used = _field(usage, "vram_used")
        return Sample(
            time_s=time_s,
            # Older releases write 0 instead of 'N/A'; no powered device draws nothing.
            power_w=power_w or None,
            energy_j=None if resolution_uj is None else scaled(count, resolution_uj / 1e6),
            temperature_c=self._temperature_c(),
            sm_clock_hz=self._clock_hz("clk", "cur_clk"),
            used_bytes=None if used is None else int(used * _MIB_BYTES),
            utilization_frac=scaled(_field(activity, "gfx_activity"), 0.01),
        )

    def baseline(self) -> Baseline:
        """Read limits and errors."""
        rest = self.sample()
        caps = self._ask("amdsmi_get_power_cap_info")
        errors = _field(self._ask("amdsmi_get_gpu_total_ecc_count"), "uncorrectable_count")
        driver = self._ask("amdsmi_get_gpu_driver_info")
        return Baseline(
            used_bytes=rest.used_bytes,
            utilization_frac=rest.utilization_frac,
            power_limit_w=scaled(_field(caps, "power_cap"), 1e-6),
            power_limit_default_w=scaled(_field(caps, "default_power_cap"), 1e-6),
            driver_version=driver.get("driver_version") if isinstance(driver, dict) else None,
            ecc_uncorrected=None if errors is None else int(errors),
            sm_clock_max_hz=self._clock_hz("max_clk"),
        )

    def close(self) -> None:
        """Shut the library down."""
        with suppress(self._smi.AmdSmiException):
            self._smi.amdsmi_shut_down()


def open_amd(device: Device) -> AmdTelemetry | None:
    """Return a reader for the device at this PCI address; by order only where there is but one."""
    smi = import_amdsmi()
    if smi is None:
        return None
    try:
        handles = list(smi.amdsmi_get_processor_handles())
        addresses = [str(smi.amdsmi_get_gpu_device_bdf(handle)).lower() for handle in handles]
    except (smi.AmdSmiException, *_UNFIT):
        return None
    wanted = (device.pci_bus_id or "").lower()
    found = [
        handle
        for handle, address in zip(handles, addresses, strict=True)
        if (wanted.endswith(address) if wanted else len(handles) == 1)
    ]
    return AmdTelemetry(smi, handle=found[0], name=device.name) if found else None
