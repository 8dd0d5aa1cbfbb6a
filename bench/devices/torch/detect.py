"""What torch can run on here: every accelerator, then the CPU.

Asking creates no context on a device that states its size, because memory in use before a trial
must stay what others use; so free memory comes from NVML or is left out. Nothing is asked of a
backend that says it is not available (a CUDA build of torch on a machine without a GPU), and a
device that does not answer while its neighbour does is a problem to print, not the end.
"""

import re
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch

from bench.core.errors import UsageError, one_of
from bench.core.nouns import Device
from bench.devices.host.cpu import cpu_model, free_memory_bytes, usable_cores, usable_memory_bytes
from bench.devices.telemetry.nvml import memory_free_bytes
from bench.devices.telemetry.readers import open_telemetry
from bench.devices.torch.backends import (
    attempt,
    device_module,
    identify,
    load_packages,
    registered_type,
)

IN_TREE_TYPES = ("cuda", "xpu", "mps", "hpu", "mtia")
_LABEL = re.compile(r"([a-z][a-z_]*[0-9]?)(?::(0|[1-9][0-9]{0,3}))?")
_UNIT_FIELDS = ("multi_processor_count", "max_compute_units", "cube_core_num")
_CPU_VENDORS = {
    **{name: rf"\b{name}\b" for name in ("intel", "amd", "apple", "hygon")},
    "huawei": r"kunpeng|hisilicon",
    "nvidia": r"\bgrace\b",
}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Devices that answer, best first and the CPU last, and what is wrong with the others."""

    devices: tuple[Device, ...]
    problems: tuple[str, ...]


def survey() -> Survey:
    """Look at every device type that torch knows here."""
    load_packages()
    found = [_devices_of(device_type) for device_type in accelerator_types()]
    devices = [*chain(*(answering for answering, _ in found)), cpu_device()]
    problems = chain(*(silent for _, silent in found))
    return Survey(devices=tuple(map(_with_telemetry, devices)), problems=tuple(problems))


def find(label: str | None) -> Device:
    """Device with this label (`cuda` means `cuda:0`); None means the best accelerator, else CPU."""
    wanted = None if label is None else parse_label(label)
    here = survey()
    for device in here.devices:
        if wanted in (None, (device.type, device.index)):
            return device
    labels = [device.label for device in here.devices]
    hint = f"({'; '.join(here.problems)})" if here.problems else ""
    raise one_of("device", label, labels, hint=hint)


def locate(label: str) -> tuple[str, int]:
    """Type and index of a device that is here, without describing it or its neighbours."""
    device_type, index = parse_label(label)
    if (device_type, index) == ("cpu", 0):
        return device_type, index
    load_packages()
    if device_type not in accelerator_types() or index >= device_count(device_type):
        find(label)  # raises what is here instead
    return device_type, index


def uuid_of(properties: object) -> str | None:
    """Return what names a device among all, whichever of them are visible; None where unknown."""
    uuid = getattr(properties, "uuid", None)
    return uuid.hex() if isinstance(uuid, bytes) else uuid and str(uuid)


def parse_label(label: str) -> tuple[str, int]:
    """Type and index of `cuda:1`; the index is 0 in `cuda`."""
    match = _LABEL.fullmatch(label.strip())
    if match is None:
        raise UsageError(
            f"device {label!r} is not a device type with an optional number; "
            "try cpu, cuda, cuda:1, xpu, mps, npu:0"
        )
    return match[1], int(match[2] or 0)


def current_accelerator_type() -> str | None:
    """Device type that `torch.accelerator` speaks for, or None."""
    device = attempt(lambda: torch.accelerator.current_accelerator(check_available=True))
    return None if device is None else device.type


def accelerator_types() -> list[str]:
    """Available device types, torch's own choice first."""
    known = dict.fromkeys((current_accelerator_type(), registered_type(), *IN_TREE_TYPES))
    return [one for one in known if one is not None and _is_available(one)]


def _is_available(device_type: str) -> bool:
    answer = attempt(lambda: device_module(device_type).is_available())
    return bool(answer) or device_type == current_accelerator_type()


def device_count(device_type: str) -> int:
    """Number of devices of a type that is available."""
    count = attempt(lambda: int(device_module(device_type).device_count()))
    if count is None and device_type == current_accelerator_type():
        count = attempt(torch.accelerator.device_count)
    return 1 if count is None else count


def _devices_of(device_type: str) -> tuple[list[Device], list[str]]:
    found = [describe(device_type, index) for index in range(device_count(device_type))]
    silent = [one for one in found if one.name == one.type and one.memory_bytes is None]
    if len(silent) == len(found):
        # A small backend that describes nothing at all may still compute.
        return found, []
    problems = [f"{device.label} does not answer" for device in silent]
    return [device for device in found if device not in silent], problems


def describe(device_type: str, index: int) -> Device:
    """One accelerator as far as torch and NVML describe it, telemetry left out."""
    module = device_module(device_type)
    if device_type == "mps":
        properties: Any = _mps_properties()
    else:
        properties = attempt(lambda: module.get_device_properties(index))
    name = attempt(lambda: str(properties.name))
    name = name or attempt(lambda: str(module.get_device_name(index))) or device_type
    vendor, stack = identify(device_type, name=name)
    counts = (getattr(properties, field, None) for field in _UNIT_FIELDS)
    # Free bytes only where the question had to be asked anyway.
    free_bytes, total_bytes = None, attempt(lambda: int(properties.total_memory))
    if not total_bytes:
        free_bytes, total_bytes = memory_info(device_type, index) or (None, None)
    device = Device(
        type=device_type,
        index=index,
        name=name,
        vendor=vendor,
        stack=stack,
        memory_bytes=total_bytes,
        memory_free_bytes=free_bytes,
        uuid=uuid_of(properties),
        pci_bus_id=_pci_bus_id(properties),
        compute_units=next((int(count) for count in counts if count), None),
    )
    if vendor == "nvidia":
        return replace(device, memory_free_bytes=memory_free_bytes(device))
    return device


def memory_info(device_type: str, index: int) -> tuple[int, int] | None:
    """Free and total bytes of a whole device as torch shows them; may create a context on it."""
    info: Any = attempt(lambda: device_module(device_type).mem_get_info(index))
    if info is None and device_type == current_accelerator_type():
        info = attempt(lambda: torch.accelerator.get_memory_info(index))
    return None if info is None else (int(info[0]), int(info[1]))


def _pci_bus_id(properties: Any) -> str | None:
    """Domain, bus, device and function as NVML writes them: `00000000:3B:00.0`."""
    fields = ("pci_domain_id", "pci_bus_id", "pci_device_id")
    parts = [getattr(properties, field, None) for field in fields]
    if not all(isinstance(part, int) for part in parts):
        return None
    domain, bus, slot = parts
    return f"{domain:08X}:{bus:02X}:{slot:02X}.0"


def _mps_properties() -> SimpleNamespace:
    """Apple's GPU, which shares the memory of the machine, described as the others are."""
    backend: Any = torch.backends.mps
    recommended_bytes = attempt(lambda: int(torch.mps.recommended_max_memory()))
    return SimpleNamespace(
        name=attempt(lambda: str(backend.get_name())) or cpu_model() or "Apple GPU",
        total_memory=recommended_bytes or usable_memory_bytes(),
        multi_processor_count=attempt(lambda: int(backend.get_core_count())),
    )


def cpu_device() -> Device:
    """The processor, as far as this process may use it."""
    name = cpu_model() or "CPU"
    found = (vendor for vendor, part in _CPU_VENDORS.items() if re.search(part, name.lower()))
    return Device(
        type="cpu",
        index=0,
        name=name,
        vendor=next(found, None),
        stack="CPU",
        memory_bytes=usable_memory_bytes(),
        memory_free_bytes=free_memory_bytes(),
        compute_units=usable_cores(),
    )


def _with_telemetry(device: Device) -> Device:
    telemetry = open_telemetry(device)
    if telemetry is None:
        return device
    with closing(telemetry):
        return replace(device, telemetry=telemetry.available)
