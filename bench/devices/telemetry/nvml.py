"""Telemetry of NVIDIA devices through NVML, the driver's own library.

The device is found by UUID or PCI address, because NVML's order is not torch's. Every call is
wrapped by itself: drivers refuse them one by one, and a refusal is None. Process lists are not
read: inside a container NVML gives the host's process ids, so "not mine" cannot be seen in them.
Source of calls, units and fields: https://docs.nvidia.com/deploy/nvml-api/

How devices are linked is read as well: NVML answers without making a context on a device, which
torch's own calls do. Bandwidths are left out (they are measured or in the catalogue), and the links
of MIG slices.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.core.nouns import Device
from bench.devices.telemetry.bounds import bounded, is_possible
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
"""NVML_FI_DEV_POWER_INSTANT, an unsigned int. nvmlDeviceGetPowerUsage is a one-second mean from
Ampere on."""
_SCOPE_GPU, _SCOPE_MODULE = 0, 1
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
        power_w = float(values[0].value.uiVal) / 1e3
        return power_w if is_possible("power_w", power_w) else None

    def _power_w(self) -> float | None:
        if self._has_mig:
            return None
        instant_w = self._instant_power_w(_SCOPE_MODULE if self._is_module else _SCOPE_GPU)
        if instant_w is not None or self._is_module:
            return instant_w
        return scaled(self._ask("nvmlDeviceGetPowerUsage"), 1e-3)

    def _reasons(self) -> frozenset[str] | None:
        for name in ("Event", "Throttle"):  # the newer name of the call, the older
            mask = self._ask(f"nvmlDeviceGetCurrentClocks{name}Reasons")
            if mask is not None:
                return frozenset(name for bit, name in _EVENT_REASONS.items() if mask & bit)
        return None

    def _used_bytes(self) -> int | None:
        """Memory that processes hold. The first version of the call counts the driver's own too."""
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        memory = version and self._ask("nvmlDeviceGetMemoryInfo", version)
        memory = memory or self._ask("nvmlDeviceGetMemoryInfo")
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
        return bounded(
            Sample,
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
        return bounded(
            Baseline,
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


_SWITCH = "switch"
_DRIVER_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Of the Linux driver, and of Windows's under WSL."""

# nvml.h, nvmlGpuTopologyLevel_t: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceStructs.html
_TOPOLOGY = {
    0: "same board",
    10: "one PCIe switch",
    20: "several PCIe switches",
    30: "one PCIe host bridge",
    40: "one memory node",
    50: "across processor sockets",
}


@dataclass(frozen=True, kw_only=True)
class PhysicalLink:
    """What joins two devices, or one device and its host."""

    first: str
    second: str
    """Label of the other device, or `host`."""
    kind: str
    """nvlink or pcie."""
    detail: str


def device_memories() -> list[tuple[str, int]]:
    """Return (name, free bytes) of each NVIDIA device, for quick looks that must not import torch.

    Other stacks tell nothing until torch is imported.
    """
    if sys.platform == "linux" and not any(path.exists() for path in _DRIVER_DEVICES):
        return []  # importing NVML's binding costs more than all the rest
    found: list[tuple[str, int]] = []
    with opened_nvml() as nvml:
        for index in range(ask_nvml(nvml, "nvmlDeviceGetCount") or 0):
            handle = ask_nvml(nvml, "nvmlDeviceGetHandleByIndex", index)
            memory = ask_nvml(nvml, "nvmlDeviceGetMemoryInfo", handle)
            if memory is not None:
                name = ask_nvml(nvml, "nvmlDeviceGetName", handle)
                found.append((str(name or "NVIDIA device"), int(memory.free)))
    return found


def memory_free_bytes(device: Device) -> int | None:
    """Free memory of this device, or None where NVML does not know it."""
    with opened_nvml() as nvml:
        handle = find_handle(nvml, device=device)
        info = None if handle is None else ask_nvml(nvml, "nvmlDeviceGetMemoryInfo", handle)
        return None if info is None else int(info.free)


def device_links(devices: Sequence[Device]) -> list[PhysicalLink]:
    """Links to the host and between each two of these devices, where NVML knows."""
    with opened_nvml() as nvml:
        handles = {
            device.label: find_handle(nvml, device=device)
            for device in devices
            if device.type == "cuda"
        }
        known = [(label, handle) for label, handle in handles.items() if handle is not None]
        found = [_host_link(nvml, label=label, handle=handle) for label, handle in known]
        found += [_pair_link(nvml, one=one, other=two) for one, two in combinations(known, 2)]
    return [link for link in found if link is not None]


def _host_link(nvml: Any, *, label: str, handle: Any) -> PhysicalLink | None:
    """PCIe as far as device and slot allow: an idle device slows its link down to save power."""
    generation = ask_nvml(nvml, "nvmlDeviceGetMaxPcieLinkGeneration", handle)
    width = ask_nvml(nvml, "nvmlDeviceGetMaxPcieLinkWidth", handle)
    if generation is None or width is None:
        return None
    detail = f"gen {generation} x{width}"
    return PhysicalLink(first=label, second="host", kind="pcie", detail=detail)


def _pair_link(nvml: Any, *, one: tuple[str, Any], other: tuple[str, Any]) -> PhysicalLink | None:
    (first, handle), (second, peer) = one, other
    bus_id = _bus_id(ask_nvml(nvml, "nvmlDeviceGetPciInfo", peer))
    far_ends, kind = _far_ends(nvml, handle=handle), "nvlink"
    level = ask_nvml(nvml, "nvmlDeviceGetTopologyCommonAncestor", handle, peer)
    if bus_id is not None and bus_id in far_ends:
        detail = f"{far_ends.count(bus_id)} links"
    elif _SWITCH in far_ends and _SWITCH in _far_ends(nvml, handle=peer):
        detail = f"{far_ends.count(_SWITCH)} links through NVSwitch"
    elif level is not None:
        kind, detail = "pcie", _TOPOLOGY.get(int(level), f"topology level {level}")
    else:
        return None
    return PhysicalLink(first=first, second=second, kind=kind, detail=detail)


def _far_ends(nvml: Any, *, handle: Any) -> list[str | None]:
    """Far end (a switch, a PCI bus id, None where it cannot be read) of each active NVLink."""
    far_ends: list[str | None] = []
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        if not ask_nvml(nvml, "nvmlDeviceGetNvLinkState", handle, link):
            continue
        kind = ask_nvml(nvml, "nvmlDeviceGetNvLinkRemoteDeviceType", handle, link)
        peer = ask_nvml(nvml, "nvmlDeviceGetNvLinkRemotePciInfo", handle, link)
        is_switch = kind == nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH
        far_ends.append(_SWITCH if is_switch else _bus_id(peer))
    return far_ends


def _bus_id(info: Any) -> str | None:
    if info is None:
        return None
    return info.busId.decode() if isinstance(info.busId, bytes) else str(info.busId)
