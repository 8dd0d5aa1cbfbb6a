"""Machines that play recorded readings: NVML, AMD SMI, files of /proc and /sys, a reader, torch.

A reading is what each call of that name answers, or a function of the call's arguments. None is
refused, as drivers do; MISSING is a call that this release of the binding does not have.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from bench.devices.telemetry.common import Sample

MISSING = object()


def make_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


class DriverError(Exception):
    pass


class RecordedDriver:
    def __init__(self, readings: dict[str, Any]) -> None:
        self.readings = readings
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if self.readings.get(name, MISSING) is MISSING:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            value = self.readings[name]
            answer = value(*arguments) if callable(value) else value
            if answer is None:
                raise DriverError("Not Supported")
            return answer

        return call


def instant_power(power_mw: int, *, error: int = 0) -> list[SimpleNamespace]:
    value = SimpleNamespace(uiVal=power_mw)
    return [SimpleNamespace(nvmlReturn=error, value=value)]


H100: dict[str, Any] = {
    "nvmlShutdown": 0,
    "nvmlSystemGetDriverVersion": "580.95",
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
    "nvmlDeviceGetHandleByUUID": {"GPU-1234": "handle 0"}.get,
    "nvmlDeviceGetHandleByPciBusId": {"0000:17:00.0": "handle 0"}.get,
    "nvmlDeviceGetName": b"Fake H100",
    "nvmlDeviceIsMigDeviceHandle": 0,
    "nvmlDeviceGetMigMode": None,
    "nvmlDeviceGetFieldValues": instant_power(250_000),
    "nvmlDeviceGetPowerUsage": 111_000,
    "nvmlDeviceGetTotalEnergyConsumption": 7_000,
    "nvmlDeviceGetClockInfo": 1_755,
    "nvmlDeviceGetTemperature": 55,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x04 | 0x20 | 0x01,
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 * 2**30, free=5 * 2**30),
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=40),
    "nvmlDeviceGetEnforcedPowerLimit": 600_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    "nvmlDeviceGetMaxClockInfo": 1_980,
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetTotalEccErrors": 0,
    "nvmlDeviceGetViolationStatus": lambda handle, policy: SimpleNamespace(
        violationTime=2_500_000_000 if policy == 1 else 9_000_000_000
    ),
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetNvLinkState": None,
}


class RecordedNvml(RecordedDriver):
    """NVML with one H100, or with other readings."""

    NVMLError = DriverError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    NVML_NVLINK_MAX_LINKS = 4
    NVML_NVLINK_DEVICE_TYPE_SWITCH = 2
    nvmlMemory_v2 = 0x2000028  # noqa: N815

    def __init__(self, **readings: Any) -> None:
        super().__init__({**H100, **readings})


def linked(**far_ends: list[str]) -> dict[str, Any]:
    """Readings of H100s `handle0`, `handle1`, ... by the far ends of their NVLinks."""

    def far_end(handle: str, link: int) -> str:
        return far_ends[handle][link]

    return {
        "nvmlDeviceGetHandleByUUID": lambda uuid: f"handle{uuid[-1]}",
        "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=f"bus-{handle[-1]}"),
        "nvmlDeviceGetNvLinkState": lambda handle, link: (
            1 if link < len(far_ends.get(handle, [])) else None
        ),
        "nvmlDeviceGetNvLinkRemoteDeviceType": lambda *end: 2 if far_end(*end) == "switch" else 0,
        "nvmlDeviceGetNvLinkRemotePciInfo": lambda *end: SimpleNamespace(
            busId=far_end(*end).encode()
        ),
    }


MI300X: dict[str, Any] = {
    "amdsmi_get_processor_handles": [0, 1],
    "amdsmi_get_gpu_device_bdf": lambda handle: f"0000:0{handle}:00.0",
    "amdsmi_get_power_info": {"current_socket_power": 300, "average_socket_power": "N/A"},
    "amdsmi_get_energy_count": {"energy_accumulator": 2_000_000, "counter_resolution": 15.3},
    "amdsmi_get_temp_metric": lambda handle, kind, metric: 60 if kind == "hotspot" else 50,
    "amdsmi_get_clock_info": {"clk": 1_300, "max_clk": 2_100, "min_clk": 500},
    "amdsmi_get_gpu_vram_usage": {"vram_total": 65_536, "vram_used": 512},
    "amdsmi_get_power_cap_info": {"power_cap": 500_000_000, "default_power_cap": 750_000_000},
    "amdsmi_shut_down": 0,
}


class RecordedAmdSmi(RecordedDriver):
    """AMD SMI with two MI300X, or with other readings."""

    AmdSmiException = DriverError
    AmdSmiClkType = SimpleNamespace(GFX="gfx")
    AmdSmiTemperatureType = SimpleNamespace(HOTSPOT="hotspot", EDGE="edge")
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT="current")

    def __init__(self, **readings: Any) -> None:
        super().__init__({**MI300X, **readings})


class ReplayTelemetry:
    """One recorded sample for each call; an exception is raised, a function called instead.

    After the last item the reader fails, as a device that was lost does.
    """

    scope = "gpu"
    available: tuple[str, ...] = ()

    def __init__(self, samples: Sequence[Sample | Exception | Callable[[], Sample]]) -> None:
        self.samples = iter(samples)
        self.asked: list[bool] = []

    def sample(self, *, with_memory: bool = True) -> Sample:
        self.asked.append(with_memory)
        item = next(self.samples, OSError("the recording has ended"))
        if isinstance(item, Exception):
            raise item
        return item if isinstance(item, Sample) else item()


def refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("not implemented by this vendor")


def add_backend(
    monkeypatch: pytest.MonkeyPatch,
    device_type: str,
    *,
    num_devices: int = 1,
    is_available: bool = True,
    **functions: Any,
) -> ModuleType:
    """Give torch a module for a device type, with only the functions named."""
    module = ModuleType(f"torch.{device_type}")
    counts = {"is_available": lambda: is_available, "device_count": lambda: num_devices}
    vars(module).update({**counts, **functions})
    monkeypatch.setattr(torch, device_type, module, raising=False)
    return module


def choose_accelerator(monkeypatch: pytest.MonkeyPatch, device_type: str | None) -> None:
    """Let `torch.accelerator` speak for this device type, or for none."""
    device = None if device_type is None else SimpleNamespace(type=device_type)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: device)
