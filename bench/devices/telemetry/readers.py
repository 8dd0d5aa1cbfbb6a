"""The reader for a device: NVML, AMD SMI, or RAPL for the processor."""

from bench.core.nouns import Device
from bench.devices.telemetry.amd_smi import open_amd
from bench.devices.telemetry.common import Telemetry
from bench.devices.telemetry.nvml import open_nvml
from bench.devices.telemetry.rapl import open_rapl


def open_telemetry(device: Device) -> Telemetry | None:
    """Return the reader for this device, or None where nothing can be read."""
    if device.type == "cpu":
        return open_rapl()
    if device.type == "cuda" and device.vendor == "amd":
        return open_amd(device)
    if device.type == "cuda" and device.vendor in ("nvidia", None):
        return open_nvml(device)
    return None
