"""Accelerators that the driver shows without torch, for `bench list` and other quick looks.

Only NVML can be asked this cheaply; other stacks tell nothing until torch is imported, and
`bench devices` is the verb for that.
"""

import sys
from pathlib import Path

from bench.devices.nvml import import_nvml

_DRIVER_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Of the Linux driver, and of Windows's under WSL."""


def device_memories() -> list[tuple[str, int]]:
    """Return (name, free bytes) of each NVIDIA device; empty where there is no driver."""
    if sys.platform == "linux" and not any(path.exists() for path in _DRIVER_DEVICES):
        return []  # importing NVML's binding costs more than all the rest
    nvml = import_nvml()
    if nvml is None:
        return []
    found: list[tuple[str, int]] = []
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name = nvml.nvmlDeviceGetName(handle)
            free_bytes = int(nvml.nvmlDeviceGetMemoryInfo(handle).free)
            found.append((name.decode() if isinstance(name, bytes) else str(name), free_bytes))
    except nvml.NVMLError:
        return found
    finally:
        nvml.nvmlShutdown()
    return found
