"""Telemetry of AMD devices through AMD SMI, where ROCm has installed its binding.

The binding is optional and not on every machine with a working torch, so a missing one is no error;
nor is one that does not fit its driver. AMD SMI writes 'N/A' or all ones for what a device does not
give, and renames its fields now and then; all end as None here. Left out: throttle reasons, which
it only gives as percentages on some devices.
Source of calls and units: https://rocm.docs.amd.com/projects/amdsmi/en/latest/reference/amdsmi-py-api.html
"""

import time
from contextlib import suppress
from functools import cached_property
from typing import Any

from bench.core.nouns import Device
from bench.devices.telemetry.common import Baseline, Clock, Sample, available_fields, scaled

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


def _number(answer: Any, *names: str) -> float | None:
    """First of these fields that is a number; an empty reading is 'N/A', all ones or absent."""
    if not isinstance(answer, dict):
        return None
    for name in names:
        value = answer.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if value >= 0 and value not in _EMPTY:
            return float(value)
    return None


class AmdTelemetry:
    """One AMD device. Its energy counter has been seen frozen, so it is always checked."""

    def __init__(
        self, smi: Any, *, handle: Any, name: str = "", clock: Clock = time.monotonic
    ) -> None:
        self.scope = "module" if any(part in name for part in _TWO_DIES) else "gpu"
        self._smi = smi
        self._handle = handle
        self._clock = clock

    @cached_property
    def available(self) -> tuple[str, ...]:
        """What this device gives, tried once."""
        return available_fields(self.sample(), baseline=self.baseline())

    def _ask(self, function: str, *arguments: Any) -> Any | None:
        call = getattr(self._smi, function, None)
        if call is None:
            return None
        try:
            return call(self._handle, *arguments)
        except (self._smi.AmdSmiException, *_UNFIT):
            return None

    def _power_w(self) -> float | None:
        answer = self._ask("amdsmi_get_power_info")
        power_w = _number(answer, "current_socket_power", "socket_power", "average_socket_power")
        # Older releases write 0 instead of 'N/A'; no powered device draws nothing.
        return power_w or None

    def _energy_j(self) -> float | None:
        answer = self._ask("amdsmi_get_energy_count")
        count = _number(answer, "energy_accumulator", "power")
        resolution_uj = _number(answer, "counter_resolution")
        return None if count is None or resolution_uj is None else count * resolution_uj / 1e6

    def _temperature_c(self) -> float | None:
        kinds = getattr(self._smi, "AmdSmiTemperatureType", None)
        metrics = getattr(self._smi, "AmdSmiTemperatureMetric", None)
        current = getattr(metrics, "CURRENT", None)
        for name in ("HOTSPOT", "EDGE"):
            kind = getattr(kinds, name, None)
            if kind is None or current is None:
                continue
            value = self._ask("amdsmi_get_temp_metric", kind, current)
            celsius = _number({name: value}, name)
            if celsius:
                return celsius
        return None

    def _clock_mhz(self, *names: str) -> float | None:
        kind = getattr(getattr(self._smi, "AmdSmiClkType", None), "GFX", None)
        answer = self._ask("amdsmi_get_clock_info", kind) if kind is not None else None
        return _number(answer, *names)

    def sample(self, *, with_memory: bool = True) -> Sample:
        """Read the device now."""
        time_s = self._clock()
        energy_j = self._energy_j()
        power_w = self._power_w()
        usage = self._ask("amdsmi_get_gpu_vram_usage") if with_memory else None
        activity = self._ask("amdsmi_get_gpu_activity") if with_memory else None
        used = _number(usage, "vram_used")
        return Sample(
            time_s=time_s,
            power_w=power_w,
            energy_j=energy_j,
            temperature_c=self._temperature_c(),
            sm_clock_hz=scaled(self._clock_mhz("clk", "cur_clk"), 1e6),
            used_bytes=None if used is None else int(used * _MIB_BYTES),
            utilization_frac=scaled(_number(activity, "gfx_activity"), 0.01),
        )

    def baseline(self) -> Baseline:
        """Read limits and errors."""
        rest = self.sample()
        caps = self._ask("amdsmi_get_power_cap_info")
        errors = _number(self._ask("amdsmi_get_gpu_total_ecc_count"), "uncorrectable_count")
        driver = self._ask("amdsmi_get_gpu_driver_info")
        return Baseline(
            used_bytes=rest.used_bytes,
            utilization_frac=rest.utilization_frac,
            power_limit_w=scaled(_number(caps, "power_cap"), 1e-6),
            power_limit_default_w=scaled(_number(caps, "default_power_cap"), 1e-6),
            driver_version=driver.get("driver_version") if isinstance(driver, dict) else None,
            ecc_uncorrected=None if errors is None else int(errors),
            sm_clock_max_hz=scaled(self._clock_mhz("max_clk"), 1e6),
        )

    def close(self) -> None:
        """Shut the library down."""
        with suppress(self._smi.AmdSmiException):
            self._smi.amdsmi_shut_down()


def open_amd(device: Device, *, smi: Any = None) -> AmdTelemetry | None:
    """Return a reader for the device at this PCI address; by order only where there is but one."""
    module = smi if smi is not None else import_amdsmi()
    if module is None:
        return None
    try:
        handles = list(module.amdsmi_get_processor_handles())
        addresses = [str(module.amdsmi_get_gpu_device_bdf(handle)).lower() for handle in handles]
    except (module.AmdSmiException, *_UNFIT):
        handles, addresses = [], []
    wanted = (device.pci_bus_id or "").lower()
    for handle, address in zip(handles, addresses, strict=True):
        if wanted and wanted.endswith(address):
            return AmdTelemetry(module, handle=handle, name=device.name)
    if not wanted and len(handles) == 1:
        return AmdTelemetry(module, handle=handles[0], name=device.name)
    return None
