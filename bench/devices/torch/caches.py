"""How large a device's last cache is: a copy must be larger than that to measure memory."""

from pathlib import Path
from typing import Any

from bench.core.errors import UsageError
from bench.core.nouns import Device
from bench.core.units import parse_bytes
from bench.devices.torch.backends import attempt, device_module

_CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def largest_cache_bytes(device: Device, *, root: Path = _CPU_CACHES) -> int:
    """Bytes of the largest cache that the device states, or 0 where it states none."""
    if device.type == "cpu":
        return max((_size_bytes(path) for path in root.glob("index*/size")), default=0)
    module: Any = device_module(device.type)
    properties = attempt(lambda: module.get_device_properties(device.index))
    return int(getattr(properties, "L2_cache_size", 0) or 0)


def _size_bytes(path: Path) -> int:
    """Linux writes `32768K` and means KiB."""
    try:
        return parse_bytes(path.read_text().strip() + "iB")
    except (OSError, UnicodeDecodeError, UsageError):
        return 0
