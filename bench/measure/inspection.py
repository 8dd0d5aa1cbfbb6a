"""What the parent must know of a device before it plans, found out by a process of its own.

The parent never imports torch: `python -m bench.measure.inspection` detects the device, probes
its dtypes, lists torch's libraries, and measures or loads its roof.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

import msgspec

from bench.core.nouns import Capability, Device, Dtype
from bench.measure.asking import answer, ask, pin

_NAME = "fake device (simulated time)"
FAKE = Device(type="fake", index=0, name=_NAME, vendor=None, stack="none", memory_bytes=None)

MIOPEN_FIND_MODE = "DYNAMIC_HYBRID"
"""How trials let MIOpen search where the user sets nothing: without solvers that need compiling.

The other modes that search compile for minutes, anew for each shape of a convolution
(https://rocm.docs.amd.com/projects/MIOpen/en/latest/reference/env_variables.html).
"""


@dataclass(frozen=True, kw_only=True)
class KnownRoof:
    """What a row takes over of a measured roof, by dtype; `bench.devices.torch.roof` has it all."""

    flops_per_s: Mapping[str, float] = field(default_factory=dict)
    sustained_flops_per_s: Mapping[str, float] = field(default_factory=dict)
    bytes_per_s: float | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    """Method, shapes and time."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A device as a plan and its rows need it."""

    device: Device
    capabilities: Mapping[str, Capability]
    roofs: Mapping[int, KnownRoof] = field(default_factory=dict)
    """Those that are known, on a CPU by number of threads, else under 0."""
    torch_facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_accelerator(self) -> bool:
        """Whether it is a device of this machine other than its processor."""
        return self.device.is_here and self.device.type != "cpu"

    @property
    def gives_power(self) -> bool:
        """Whether anything here shows what the device takes."""
        return bool({"power", "energy"} & set(self.device.telemetry))

    def roof(self, *, threads: int) -> KnownRoof:
        """Return what so many compute threads can do at best; nothing where it is not known."""
        return self.roofs.get(0 if self.is_accelerator else threads, KnownRoof())

    @property
    def default_dtype(self) -> Dtype:
        """bf16 on an accelerator that computes it right, fp32 elsewhere."""
        return "bf16" if self.is_accelerator and self.capabilities.get("bf16") == "ok" else "fp32"


class _Question(msgspec.Struct, frozen=True, kw_only=True):
    label: str | None
    dtypes: tuple[str, ...]
    with_roof: bool
    threads: tuple[int, ...]


def inspect_device(
    label: str | None, *, dtypes: tuple[str, ...], with_roof: bool, threads: tuple[int, ...]
) -> Inspection:
    """Inspect in a child process; raises `BenchError` with the child's line when it cannot.

    The roofs are those of these dtypes, or of those that run unasked, on a CPU of each number of
    threads.
    """
    if label == "fake":
        return Inspection(device=FAKE, capabilities={})
    question = _Question(label=label, dtypes=dtypes, with_roof=with_roof, threads=threads)
    what = f"device {label or 'detection'} could not be inspected"
    return ask("bench.measure.inspection", question, kind=Inspection, what=what)


def _inspect(question: _Question) -> Inspection:
    import torch

    from bench.devices.host.cpu import usable_cores, usable_cpu_ids
    from bench.devices.torch.detect import find, memory_info
    from bench.devices.torch.probe import probe_dtypes
    from bench.devices.torch.roof import load_roof, roof_for
    from bench.devices.torch.torch_adapter import adapter_for

    device = find(question.label)
    is_cpu = device.type == "cpu"
    if is_cpu:  # roofs of the cores that trials have
        pin(usable_cpu_ids(num_cores=max((usable_cores(), *question.threads))))
    adapter_for(device.label).make_current()
    capabilities = probe_dtypes(device.label)
    if not is_cpu and device.memory_free_bytes is None:
        # The probe has made the context that asking may make, and few drivers answer without one.
        info = memory_info(device.type, device.index)
        device = replace(device, memory_free_bytes=info[0] if info else None)
    dtypes = question.dtypes or (("fp32",) if is_cpu else ("fp32", "bf16"))
    wanted = tuple(name for name in dtypes if capabilities.get(name) == "ok")
    roofs = {}
    for threads in question.threads if is_cpu else (0,):
        if is_cpu:
            torch.set_num_threads(threads)
        known = roof_for(device, dtypes=wanted) if question.with_roof else load_roof(device)
        # A roof measured while others used the processor would flatter every utilisation.
        if known is not None and not known.is_disturbed:
            roofs[threads] = KnownRoof(
                flops_per_s=known.flops_per_s,
                sustained_flops_per_s=known.sustained_flops_per_s,
                bytes_per_s=known.bytes_per_s,
                source={dtype: known.source(dtype) for dtype in capabilities},
            )
    return Inspection(
        device=device,
        capabilities=capabilities,
        roofs=roofs,
        torch_facts=torch_facts(device),
    )


def torch_facts(device: Device) -> dict[str, Any]:
    """Return versions and switches; what is absent is None. Identifiers are hashed."""
    import torch

    backends: Any = torch.backends
    cudnn = backends.cudnn.version() if backends.cudnn.is_available() else None
    if cudnn and torch.version.hip:
        mode = os.environ.get("MIOPEN_FIND_MODE", MIOPEN_FIND_MODE)
        cudnn = f"MIOpen {cudnn}, find mode {mode}"
    hashed = hashlib.sha256((device.uuid or "").encode())
    onednn = backends.mkldnn.is_available() if device.type == "cpu" else None
    return {
        "torch": torch.__version__,
        "torch_git": torch.version.git_version,
        "cuda_runtime": torch.version.cuda,
        "hip_runtime": torch.version.hip,
        "cudnn": str(cudnn) if cudnn else None,
        "onednn": "oneDNN of this torch" if onednn else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{name: _version(name) for name in ("triton", "monai", "transformers", "numpy")},
        "device_name": device.name,
        "device_stack": device.stack,
        "device_uuid_hash": hashed.hexdigest()[:16] if device.uuid else None,
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    answer(_inspect, _Question)
