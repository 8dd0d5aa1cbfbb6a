"""How NVIDIA devices are wired, and how full they are, asked of NVML without touching torch.

NVML answers without making a context on a device, which torch's own calls do. Left out:
bandwidths (counting links is reading, their speed is measured or in the catalogue), other
vendors' tools, and MIG slices.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

from bench.core.nouns import Device
from bench.devices.nvml import find_handle, import_nvml

T = TypeVar("T")
_SWITCH = "switch"

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
class Wire:
    """What joins two devices, or one device and its host."""

    first: str
    second: str
    """Label of the other device, or `host`."""
    kind: str
    """nvlink or pcie."""
    detail: str


def memory_free_bytes(device: Device) -> int | None:
    """Free memory of this device, or None where NVML does not know it."""
    with _nvml() as nvml:
        handle = None if nvml is None else find_handle(nvml, device=device)
        if handle is None:
            return None
        info = _ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return None if info is None else int(info.free)


def wires(devices: Sequence[Device]) -> list[Wire]:
    """Links to the host and between each two of these devices, where NVML can tell."""
    candidates = [device for device in devices if device.type == "cuda"]
    with _nvml() as nvml:
        if nvml is None:
            return []
        handles = {device.label: find_handle(nvml, device=device) for device in candidates}
        known = [(label, handle) for label, handle in handles.items() if handle is not None]
        found = [_host_wire(nvml, label=label, handle=handle) for label, handle in known]
        for one, other in combinations(known, 2):
            found.append(_pair_wire(nvml, one=one, other=other))
    return [wire for wire in found if wire is not None]


@contextmanager
def _nvml() -> Iterator[Any]:
    """Open NVML for a moment; None where there is no NVIDIA driver."""
    nvml = import_nvml()
    try:
        yield nvml
    finally:
        if nvml is not None:
            nvml.nvmlShutdown()


def _ask(nvml: Any, call: Callable[[], T]) -> T | None:
    try:
        return call()
    except nvml.NVMLError:
        return None


def _host_wire(nvml: Any, *, label: str, handle: Any) -> Wire | None:
    """PCIe as far as device and slot allow: an idle device slows its link down to save power."""
    generation = _ask(nvml, lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle))
    width = _ask(nvml, lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(handle))
    if generation is None or width is None:
        return None
    return Wire(first=label, second="host", kind="pcie", detail=f"gen {generation} x{width}")


def _pair_wire(nvml: Any, *, one: tuple[str, Any], other: tuple[str, Any]) -> Wire | None:
    (first, handle), (second, peer) = one, other
    bus_id = _ask(nvml, lambda: _text(nvml.nvmlDeviceGetPciInfo(peer).busId))
    far_ends = _far_ends(nvml, handle=handle)
    num_direct = sum(far_end is not None and far_end == bus_id for far_end in far_ends)
    num_switched = far_ends.count(_SWITCH)
    if num_direct:
        return Wire(first=first, second=second, kind="nvlink", detail=f"{num_direct} links")
    if num_switched and _SWITCH in _far_ends(nvml, handle=peer):
        detail = f"{num_switched} links through NVSwitch"
        return Wire(first=first, second=second, kind="nvlink", detail=detail)
    level = _ask(nvml, lambda: int(nvml.nvmlDeviceGetTopologyCommonAncestor(handle, peer)))
    if level is None:
        return None
    detail = _TOPOLOGY.get(level, f"topology level {level}")
    return Wire(first=first, second=second, kind="pcie", detail=detail)


def _far_ends(nvml: Any, *, handle: Any) -> list[str | None]:
    """Far end (a switch, a PCI bus id, None where it cannot be read) of each active NVLink."""
    return [
        _far_end(nvml, handle=handle, link=link)
        for link in range(nvml.NVML_NVLINK_MAX_LINKS)
        if _is_active(nvml, handle=handle, link=link)
    ]


def _is_active(nvml: Any, *, handle: Any, link: int) -> bool:
    return bool(_ask(nvml, lambda: nvml.nvmlDeviceGetNvLinkState(handle, link)))


def _far_end(nvml: Any, *, handle: Any, link: int) -> str | None:
    kind = _ask(nvml, lambda: nvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link))
    if kind == nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
        return _SWITCH
    return _ask(nvml, lambda: _text(nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
