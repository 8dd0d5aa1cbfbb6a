"""NVIDIA devices, their memory and how they are linked, asked of NVML without touching torch.

NVML answers without making a context on a device, which torch's own calls do. Left out:
bandwidths (counting links is reading, their speed is measured or in the catalogue), other
vendors' tools, and MIG slices.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.core.nouns import Device
from bench.devices.telemetry.nvml import ask_nvml, find_handle, opened_nvml

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
        handles = [
            (device.label, find_handle(nvml, device=device))
            for device in devices
            if device.type == "cuda"
        ]
        known = [(label, handle) for label, handle in handles if handle is not None]
        found = [_host_link(nvml, label=label, handle=handle) for label, handle in known]
        found += [_pair_link(nvml, one=one, other=two) for one, two in combinations(known, 2)]
    return [link for link in found if link is not None]


def _host_link(nvml: Any, *, label: str, handle: Any) -> PhysicalLink | None:
    """PCIe as far as device and slot allow: an idle device slows its link down to save power."""
    generation = ask_nvml(nvml, "nvmlDeviceGetMaxPcieLinkGeneration", handle)
    width = ask_nvml(nvml, "nvmlDeviceGetMaxPcieLinkWidth", handle)
    if generation is None or width is None:
        return None
    return PhysicalLink(
        first=label, second="host", kind="pcie", detail=f"gen {generation} x{width}"
    )


def _pair_link(nvml: Any, *, one: tuple[str, Any], other: tuple[str, Any]) -> PhysicalLink | None:
    (first, handle), (second, peer) = one, other
    bus_id = _bus_id(ask_nvml(nvml, "nvmlDeviceGetPciInfo", peer))
    far_ends = _far_ends(nvml, handle=handle)
    num_direct = 0 if bus_id is None else far_ends.count(bus_id)
    num_switched = far_ends.count(_SWITCH)
    level = ask_nvml(nvml, "nvmlDeviceGetTopologyCommonAncestor", handle, peer)
    kind = "nvlink"
    if num_direct:
        detail = f"{num_direct} links"
    elif num_switched and _SWITCH in _far_ends(nvml, handle=peer):
        detail = f"{num_switched} links through NVSwitch"
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
