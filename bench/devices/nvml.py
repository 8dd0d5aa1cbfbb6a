"""Telemetry of NVIDIA devices through NVML, the driver's own library.

The device is found by UUID or PCI address, because NVML's order is not torch's. Every call is
wrapped by itself: drivers refuse them one by one, and a refusal is None. Process lists are not
read: inside a container NVML gives the host's process ids, so "not mine" cannot be told from them.
Source of calls, units and fields: https://docs.nvidia.com/deploy/nvml-api/
"""

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from types import ModuleType
from typing import Any

from bench.core.nouns import Device
from bench.devices.telemetry import Baseline, Clock, Sample, available_fields

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

# nvmlPerfPolicyType_t, same source.
_VIOLATIONS: Mapping[str, int] = {"power": 0, "thermal": 1, "board_limit": 3, "reliability": 5}

_POWER_INSTANT_FIELD = 186
"""NVML_FI_DEV_POWER_INSTANT. nvmlDeviceGetPowerUsage is a one-second mean from Ampere on."""
_SCOPE_GPU, _SCOPE_MODULE = 0, 1
_FIELD_ATTRIBUTES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Members of nvmlValue_t in the order of nvmlValueType_t."""

_SUPERCHIPS = ("GH200", "GB200", "GB300")
"""Their energy counter covers the module with its processor, while plain power is the GPU's alone
(https://github.com/ml-energy/zeus documents it for GH200)."""


def import_nvml() -> ModuleType | None:
    """Return NVML's binding, started, or None without a driver. Each success needs a shutdown."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    module: ModuleType = pynvml
    return module


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def find_handle(nvml: Any, *, device: Device) -> Any | None:
    """NVML's handle of this device; by index only where there is but one to choose from."""
    if device.uuid:
        has_prefix = device.uuid.startswith(("GPU-", "MIG-"))
        prefixes = ("",) if has_prefix else ("GPU-", "MIG-")
        for prefix in prefixes:
            try:
                return nvml.nvmlDeviceGetHandleByUUID(prefix + device.uuid)
            except nvml.NVMLError:
                continue
    try:
        if device.pci_bus_id:
            return nvml.nvmlDeviceGetHandleByPciBusId(device.pci_bus_id)
        if not device.uuid and nvml.nvmlDeviceGetCount() == 1:
            return nvml.nvmlDeviceGetHandleByIndex(0)
    except nvml.NVMLError:
        return None
    return None


class NvmlTelemetry:
    """One NVIDIA device. A MIG slice shares its power sensors, so power and energy are None."""

    def __init__(self, nvml: Any, *, handle: Any, clock: Clock = time.monotonic) -> None:
        self._nvml = nvml
        self._handle = handle
        self._clock = clock
        self.has_mig = self._detect_mig()
        name = _text(self._ask("nvmlDeviceGetName") or "")
        self._is_module = (
            any(chip in name for chip in _SUPERCHIPS)
            and self._instant_power_w(_SCOPE_MODULE) is not None
        )
        # Without a module-wide power reading a superchip's counter cannot be checked: not used.
        self._has_counter = self._is_module or not any(chip in name for chip in _SUPERCHIPS)
        self.scope = "module" if self._is_module else "gpu"

    @cached_property
    def available(self) -> tuple[str, ...]:
        """What this device gives, tried once."""
        return available_fields(self.sample(), baseline=self.baseline())

    def _ask(self, function: str, *arguments: Any) -> Any | None:
        """One NVML call with the handle; None where this driver or device refuses it."""
        call: Callable[..., Any] | None = getattr(self._nvml, function, None)
        if call is None:
            return None
        try:
            return call(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None

    def _detect_mig(self) -> bool:
        if self._ask("nvmlDeviceIsMigDeviceHandle"):
            return True
        mode = self._ask("nvmlDeviceGetMigMode")
        return bool(mode and mode[0] == 1)

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
        if self.has_mig:
            return None
        instant_w = self._instant_power_w(_SCOPE_MODULE if self._is_module else _SCOPE_GPU)
        if instant_w is not None or self._is_module:
            return instant_w
        usage_mw = self._ask("nvmlDeviceGetPowerUsage")
        return None if usage_mw is None else usage_mw / 1e3

    def _energy_j(self) -> float | None:
        if self.has_mig or not self._has_counter:
            return None
        energy_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if energy_mj is None else energy_mj / 1e3

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
        time_s = self._clock()
        energy_j = self._energy_j()
        power_w = self._power_w()
        sm_clock_mhz = self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)
        temperature_c = self._ask("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU)
        reasons = self._reasons()
        load = self._ask("nvmlDeviceGetUtilizationRates") if with_memory else None
        return Sample(
            time_s=time_s,
            power_w=power_w,
            energy_j=energy_j,
            temperature_c=None if temperature_c is None else float(temperature_c),
            sm_clock_hz=None if sm_clock_mhz is None else sm_clock_mhz * 1e6,
            throttle_reasons=reasons,
            power_limited=None if reasons is None else "sw_power_cap" in reasons,
            used_bytes=self._used_bytes() if with_memory else None,
            utilization_frac=None if load is None else load.gpu / 100.0,
        )

    def baseline(self) -> Baseline:
        """Read limits, errors and links."""
        nvml = self._nvml
        rest = self.sample()
        limit_mw = self._ask("nvmlDeviceGetEnforcedPowerLimit")
        default_mw = self._ask("nvmlDeviceGetPowerManagementDefaultLimit")
        clock_mhz = self._ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM)
        persistence = self._ask("nvmlDeviceGetPersistenceMode")
        violations = {
            cause: self._ask("nvmlDeviceGetViolationStatus", policy)
            for cause, policy in _VIOLATIONS.items()
        }
        return Baseline(
            used_bytes=rest.used_bytes,
            utilization_frac=rest.utilization_frac,
            power_limit_w=None if limit_mw is None else limit_mw / 1e3,
            power_limit_default_w=None if default_mw is None else default_mw / 1e3,
            driver_version=self._driver_version(),
            ecc_uncorrected=self._ask(
                "nvmlDeviceGetTotalEccErrors",
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            violation_s={
                cause: status.violationTime / 1e9
                for cause, status in violations.items()
                if status is not None
            },
            sm_clock_max_hz=None if clock_mhz is None else clock_mhz * 1e6,
            pcie_width=self._ask("nvmlDeviceGetCurrPcieLinkWidth"),
            pcie_width_max=self._ask("nvmlDeviceGetMaxPcieLinkWidth"),
            has_persistence=None if persistence is None else persistence == 1,
            has_mig=self.has_mig,
        )

    def _driver_version(self) -> str | None:
        try:
            return _text(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError:
            return None

    def close(self) -> None:
        """Undo the start of NVML; it counts starts, so others keep theirs."""
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            return


def open_nvml(device: Device, *, nvml: Any = None) -> NvmlTelemetry | None:
    """Return a reader for this device, or None without a driver or a device that matches."""
    module = nvml if nvml is not None else import_nvml()
    if module is None:
        return None
    handle = find_handle(module, device=device)
    if handle is None:
        module.nvmlShutdown()
        return None
    return NvmlTelemetry(module, handle=handle)
