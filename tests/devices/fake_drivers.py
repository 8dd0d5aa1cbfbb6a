"""Stand-ins for the drivers' bindings, for readers and findings."""

from types import SimpleNamespace
from typing import Any


class FakeNvmlError(Exception):
    pass


class FakeNvml:
    """NVML with one device; a value that is None is 'not supported'."""

    NVMLError = FakeNvmlError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    nvmlMemory_v2 = 0x2000028  # noqa: N815

    def __init__(self, **values: Any) -> None:
        self.num_shutdowns = 0
        self.values: dict[str, Any] = {
            "nvmlDeviceGetName": b"Fake H100",
            "nvmlDeviceIsMigDeviceHandle": 0,
            "nvmlDeviceGetMigMode": None,
            "nvmlDeviceGetFieldValues": [self.field(250_000)],
            "nvmlDeviceGetPowerUsage": 111_000,
            "nvmlDeviceGetTotalEnergyConsumption": 7_000,
            "nvmlDeviceGetClockInfo": 1_755,
            "nvmlDeviceGetTemperature": 55,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x04 | 0x20 | 0x01,
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 * 2**30),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=40),
            "nvmlDeviceGetEnforcedPowerLimit": 600_000,
            "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
            "nvmlDeviceGetMaxClockInfo": 1_980,
            "nvmlDeviceGetPersistenceMode": 1,
            "nvmlDeviceGetTotalEccErrors": 0,
            "nvmlDeviceGetViolationStatus": SimpleNamespace(violationTime=2_500_000_000),
            "nvmlDeviceGetCurrPcieLinkGeneration": 5,
            "nvmlDeviceGetMaxPcieLinkGeneration": 5,
            "nvmlDeviceGetCurrPcieLinkWidth": 16,
            "nvmlDeviceGetMaxPcieLinkWidth": 16,
            **values,
        }

    @staticmethod
    def field(power_mw: int, *, error: int = 0) -> SimpleNamespace:
        value = SimpleNamespace(uiVal=power_mw)
        return SimpleNamespace(nvmlReturn=error, valueType=1, value=value)

    def __getattr__(self, name: str) -> Any:
        if name not in self.values:
            raise AttributeError(name)

        def call(handle: object, *_: object) -> Any:
            assert handle == "handle"
            if self.values[name] is None:
                raise FakeNvmlError("Not Supported")
            return self.values[name]

        return call

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-1234":
            raise FakeNvmlError("Not Found")
        return "handle"

    def nvmlDeviceGetHandleByPciBusId(self, address: str) -> str:  # noqa: N802
        if address != "0000:17:00.0":
            raise FakeNvmlError("Not Found")
        return "handle"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        assert index == 0
        return "handle"

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.95"

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.num_shutdowns += 1


class FakeAmdError(Exception):
    pass


class FakeAmd:
    """AMD SMI with two devices, of which the second one knows little."""

    AmdSmiException = FakeAmdError
    AmdSmiClkType = SimpleNamespace(GFX="gfx")
    AmdSmiTemperatureType = SimpleNamespace(HOTSPOT="hotspot", EDGE="edge")
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT="current")

    def amdsmi_get_processor_handles(self) -> list[int]:
        return [0, 1]

    def amdsmi_get_gpu_device_bdf(self, handle: int) -> str:
        return f"0000:0{handle}:00.0"

    def amdsmi_get_power_info(self, handle: int) -> dict[str, Any]:
        if handle == 1:
            return {"current_socket_power": "N/A", "average_socket_power": 90}
        return {"current_socket_power": 300, "average_socket_power": "N/A"}

    def amdsmi_get_energy_count(self, handle: int) -> dict[str, Any]:
        if handle == 1:
            raise FakeAmdError("not supported")
        return {"energy_accumulator": 2_000_000, "counter_resolution": 15.3, "timestamp": 1}

    def amdsmi_get_temp_metric(self, handle: int, kind: str, metric: str) -> int:
        if handle == 1 and kind == "hotspot":
            raise FakeAmdError("not supported")
        return 60 + handle

    def amdsmi_get_clock_info(self, handle: int, kind: str) -> dict[str, Any]:
        return {"clk": 1_300, "max_clk": 2_100, "min_clk": 500}

    def amdsmi_get_gpu_vram_usage(self, handle: int) -> dict[str, int]:
        return {"vram_total": 65_536, "vram_used": 512}

    def amdsmi_get_power_cap_info(self, handle: int) -> dict[str, int]:
        return {"power_cap": 500_000_000, "default_power_cap": 750_000_000}

    def amdsmi_shut_down(self) -> None:
        return None
