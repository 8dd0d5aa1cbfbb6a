"""Telemetry of NVIDIA devices through NVML, the driver's own library.

The device is found by UUID or PCI address, because NVML's order is not torch's. Every call is
wrapped by itself: drivers refuse them one by one, and a refusal is None. Process lists are not
read: inside a container NVML gives the host's process ids, so "not mine" cannot be separated from
them. Source of calls, units and fields: https://docs.nvidia.com/deploy/nvml-api/
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from bench.core.nouns import Device
from bench.devices.telemetry.common import Baseline, Sample, Telemetry, scaled

# nvmlClocksEventReasons: https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html
# Bit 1 (idle) is left out: it limits nothing. Written as numbers because older bindings call them
# nvmlClocksThrottleReason*.
_EVENT_REASONS: Mapping[int, str] = {
    0x002: "app_clocks",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal",
    0x040: "hw_thermal",
    0x080: "power_brake",
    0x100: "display_clocks",
}

_THERMAL_POLICY = 1
"""NVML_PERF_POLICY_THERMAL of nvmlPerfPolicyType_t, same source."""
_POWER_INSTANT_FIELD = 186
"""NVML_FI_DEV_POWER_INSTANT. nvmlDeviceGetPowerUsage is a one-second mean from Ampere on."""
_SCOPE_GPU, _SCOPE_MODULE = 0, 1
_FIELD_ATTRIBUTES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Members of nvmlValue_t in the order of nvmlValueType_t."""

_SUPERCHIPS = ("GH200", "GB200", "GB300")
"""Their energy counter covers the module with its processor, while plain power is the GPU's alone
(https://github.com/ml-energy/zeus documents it for GH200)."""


def import_nvml() -> Any | None:
    """Return NVML's binding, started, or None without a driver. Each success needs a shutdown."""
    with suppress(ImportError):
        import pynvml

        with suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            return pynvml
    return None


@contextmanager
def opened_nvml() -> Iterator[Any]:
    """Open NVML for a moment; None where there is no NVIDIA driver."""
    nvml = import_nvml()
    try:
        yield nvml
    finally:
        if nvml is not None:
            nvml.nvmlShutdown()


def ask_nvml(nvml: Any, function: str, *arguments: Any) -> Any | None:
    """One call; None without a binding or where it, driver or device refuses. Text is decoded."""
    call = getattr(nvml, function, None)
    if call is None:
        return None
    try:
        answer = call(*arguments)
    except nvml.NVMLError:
        return None
    return answer.decode() if isinstance(answer, bytes) else answer


def find_handle(nvml: Any, *, device: Device) -> Any | None:
    """NVML's handle of this device; by index only where there is but one to choose from."""
    if device.uuid:
        has_prefix = device.uuid.startswith(("GPU-", "MIG-"))
        for prefix in ("",) if has_prefix else ("GPU-", "MIG-"):
            handle = ask_nvml(nvml, "nvmlDeviceGetHandleByUUID", prefix + device.uuid)
            if handle is not None:
                return handle
    if device.pci_bus_id:
        return ask_nvml(nvml, "nvmlDeviceGetHandleByPciBusId", device.pci_bus_id)
    if not device.uuid and ask_nvml(nvml, "nvmlDeviceGetCount") == 1:
        return ask_nvml(nvml, "nvmlDeviceGetHandleByIndex", 0)
    return None


class NvmlTelemetry(Telemetry):
    """One NVIDIA device. A MIG slice shares its power sensors, so power and energy are None."""

    def __init__(self, nvml: Any, *, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self.name = str(self._ask("nvmlDeviceGetName") or "")
        mode = self._ask("nvmlDeviceGetMigMode")
        is_slice = bool(self._ask("nvmlDeviceIsMigDeviceHandle"))
        self._has_mig = is_slice or bool(mode and mode[0] == 1)
        is_superchip = any(chip in self.name for chip in _SUPERCHIPS)
        self._is_module = is_superchip and self._instant_power_w(_SCOPE_MODULE) is not None
        # Without a module-wide power reading a superchip's counter cannot be checked: not used.
        self._has_counter = not self._has_mig and (self._is_module or not is_superchip)
        self.scope = "module" if self._is_module else "gpu"

    def _ask(self, function: str, *arguments: Any) -> Any | None:
        return ask_nvml(self._nvml, function, self._handle, *arguments)

    def _instant_power_w(self, power_scope: int) -> float | None:
        values = self._ask("nvmlDeviceGetFieldValues", [(_POWER_INSTANT_FIELD, power_scope)])
        if not values or values[0].nvmlReturn != 0:
            return None
        kind = int(values[0].valueType)
        if not 0 <= kind < len(_FIELD_ATTRIBUTES):
            return None
        power_mw = float(getattr(values[0].value, _FIELD_ATTRIBUTES[kind]))
        return power_mw / 1e3 if power_mw > 0 else None

    def _power_w(self) -> float | None:
        if self._has_mig:
            return None
        instant_w = self._instant_power_w(_SCOPE_MODULE if self._is_module else _SCOPE_GPU)
        if instant_w is not None or self._is_module:
            return instant_w
        return scaled(self._ask("nvmlDeviceGetPowerUsage"), 1e-3)

    def _reasons(self) -> frozenset[str] | None:
        mask = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if mask is None:
            mask = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        if mask is None:
            return None
        return frozenset(name for bit, name in _EVENT_REASONS.items() if mask & bit)

    def _used_bytes(self) -> int | None:
        """Memory that processes hold. The first version of the call counts the driver's own too."""
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        memory = self._ask("nvmlDeviceGetMemoryInfo", version) if version is not None else None
        if memory is None:
            memory = self._ask("nvmlDeviceGetMemoryInfo")
        return None if memory is None else int(memory.used)

    def sample(self, *, with_memory: bool = True) -> Sample:
        """Read the device now. The counter comes first: its time matters most."""
        time_s = time.monotonic()
        counted_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption") if self._has_counter else None
        power_w = self._power_w()
        sm_clock_mhz = self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)
        temperature_c = self._ask("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU)
        reasons = self._reasons()
        load = self._ask("nvmlDeviceGetUtilizationRates") if with_memory else None
        return Sample(
            time_s=time_s,
            power_w=power_w,
            energy_j=scaled(counted_mj, 1e-3),
            temperature_c=scaled(temperature_c, 1.0),
            sm_clock_hz=scaled(sm_clock_mhz, 1e6),
            throttle_reasons=reasons,
            used_bytes=self._used_bytes() if with_memory else None,
            utilization_frac=None if load is None else load.gpu / 100.0,
        )

    def baseline(self) -> Baseline:
        """Read limits, errors and links."""
        nvml = self._nvml
        rest = self.sample()
        persistence = self._ask("nvmlDeviceGetPersistenceMode")
        hot = self._ask("nvmlDeviceGetViolationStatus", _THERMAL_POLICY)
        return Baseline(
            used_bytes=rest.used_bytes,
            utilization_frac=rest.utilization_frac,
            power_limit_w=scaled(self._ask("nvmlDeviceGetEnforcedPowerLimit"), 1e-3),
            power_limit_default_w=scaled(
                self._ask("nvmlDeviceGetPowerManagementDefaultLimit"), 1e-3
            ),
            driver_version=ask_nvml(nvml, "nvmlSystemGetDriverVersion"),
            ecc_uncorrected=self._ask(
                "nvmlDeviceGetTotalEccErrors",
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            hot_s=None if hot is None else hot.violationTime / 1e9,
            sm_clock_max_hz=scaled(self._ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM), 1e6),
            pcie_width=self._ask("nvmlDeviceGetCurrPcieLinkWidth"),
            pcie_width_max=self._ask("nvmlDeviceGetMaxPcieLinkWidth"),
            has_persistence=None if persistence is None else persistence == 1,
            has_mig=self._has_mig,
        )

    def close(self) -> None:
        """Undo the start of NVML; it counts starts, so others keep theirs."""
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()


def open_nvml(device: Device) -> NvmlTelemetry | None:
    """Return a reader for this device, or None without a driver or a device that matches."""
    nvml = import_nvml()
    handle = find_handle(nvml, device=device)
    if handle is not None:
        return NvmlTelemetry(nvml, handle=handle)
    if nvml is not None:
        nvml.nvmlShutdown()
    return None
