"""Which torch backends are installed, and who made the chip behind one.

Most vendors outside torch ship a package that adds a device type (`npu`, `mlu`, ...) or imitates
`cuda`. Autoload imports most of them with torch, not all, so a short list is tried once; what
fails is kept as a reason, never raised. "cuda" says nothing about the maker: five vendors imitate
it, so the maker is found from the device's name, loaded packages, torch's build and vendor tools.
Left out: drivers and collectives; which calls a backend really answers is found by `attempt`.
"""

import functools
import importlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import torch

T = TypeVar("T")

REFUSALS = (RuntimeError, AttributeError, AssertionError, TypeError, ValueError)
"""What backends raise for what they lack; NotImplementedError is a RuntimeError."""


def attempt(call: Callable[[], T]) -> T | None:
    """Answer of one call to a backend, or None where the backend lacks it or refuses."""
    try:
        return call()
    except REFUSALS:
        return None


_TYPES = {
    "npu": ("huawei", "torch_npu"),
    "mlu": ("cambricon", "torch_mlu"),
    "musa": ("moore threads", "torch_musa"),
    "gcu": ("enflame", "torch_gcu"),
    "supa": ("biren", "torch_br"),
    "hpu": ("intel", "habana_frameworks.torch"),
    "xpu": ("intel", None),
    "mps": ("apple", None),
}
"""Vendor, and package that adds the type, by device type."""

ADDING_PACKAGES = ("torch_npu", "torch_mlu", "torch_musa", "torch_gcu", "torch_br")
"""Each takes torch's one slot for an added device type when it is imported."""
PACKAGES = (*ADDING_PACKAGES, "torch_xmlir", "habana_frameworks.torch")


class Lookalike(NamedTuple):
    """How to recognise one maker among all that answer to `cuda`."""

    platform: str
    """What the vendor calls its CUDA or HIP replacement."""
    name_pattern: str
    module: str = ""
    tool: str = ""


# Tools and names: each vendor's manual; MetaX's early drivers call the C500 just "4000" or "4001".
LOOKALIKES = {
    "iluvatar": Lookalike("CoreX", r"iluvatar|\b(BI|MR)-V\d+", tool="ixsmi"),
    "metax": Lookalike("MACA", r"metax|\bMX[CN]\d{3}|^400[01]$", tool="mx-smi"),
    "alibaba": Lookalike("PPU", r"\bPPU\b|T-Head|ZW\d{3}|Zhenwu"),
    "baidu": Lookalike("XPyTorch", r"kunlun|\bP800\b|\bR[23]00\b", module="torch_xmlir"),
    "hygon": Lookalike("DTK", r"hygon|\bDCU|\bK100(_|\b)|\bZ100|\bBW\d{3,4}\b", tool="hy-smi"),
}

_NVIDIA_NAME = r"nvidia|tesla|geforce|quadro|\bRTX\b|\bGRID\b"
_AMD_NAME = r"\bAMD\b|radeon|instinct|\bMI\d{2,3}\w?\b"


@dataclass(frozen=True, kw_only=True)
class PackageState:
    """What came of one vendor package."""

    module: str
    state: str
    """loaded, skipped, missing or failed."""
    reason: str = ""


def registered_type() -> str | None:
    """Name of the device type that a package has added to torch, or None."""
    name = torch._C._get_privateuse1_backend_name()
    return None if name == "privateuseone" else name


@functools.cache
def load_packages() -> tuple[PackageState, ...]:
    """Import every vendor package that is installed and not loaded yet, once per process."""
    states = [(module, *_load(module)) for module in PACKAGES]
    return tuple(PackageState(module=name, state=how, reason=why) for name, how, why in states)


def _load(module: str) -> tuple[str, str]:
    if module in sys.modules:
        return "loaded", "with torch"
    if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0":
        # The user's way out of a package that breaks torch: importing it here would undo that.
        return "skipped", "TORCH_DEVICE_BACKEND_AUTOLOAD=0"
    taken = registered_type()
    if module in ADDING_PACKAGES and taken is not None:
        return "skipped", f"torch has one added device type already: {taken}"
    try:
        importlib.import_module(module)
    except (ImportError, RuntimeError, OSError) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and f"{module}.".startswith(f"{absent}."):
            return "missing", "not installed"
        text = " ".join(str(error).split())
        return "failed", f"{type(error).__name__}: {text}"[:300]
    return "loaded", "by the harness"


def device_module(device_type: str) -> Any:
    """`torch.cuda` for cuda, `torch.npu` for npu, ...; None where torch has none."""
    module = getattr(torch, device_type, None)
    return module if isinstance(module, ModuleType) else None


def identify(device_type: str, *, name: str) -> tuple[str | None, str]:
    """Vendor and software stack behind a device; the vendor is None where nothing shows it."""
    if device_type == "cuda":
        return _identify_cuda(name)
    vendor, module = _TYPES.get(device_type, (None, None))
    if device_type == "mps":
        return vendor, "Metal"
    if device_type == "xpu":
        return vendor, _join("oneAPI", getattr(torch.version, "xpu", None))
    if module is None:
        return vendor, f"torch.{device_type}"
    return vendor, _join(module, getattr(sys.modules.get(module), "__version__", None))


def _identify_cuda(name: str) -> tuple[str | None, str]:
    hip = torch.version.hip
    api = _join("HIP", hip) if hip else _join("CUDA", torch.version.cuda)
    vendor = _lookalike(name)
    if vendor is not None:
        return vendor, f"{LOOKALIKES[vendor].platform} ({api})"
    if hip:
        is_amd = _matches(_AMD_NAME, name) or has_tool("rocm-smi", "amd-smi", "rocminfo")
        release = getattr(torch.version, "rocm", None) or hip
        return ("amd" if is_amd else None), _join("ROCm", release)
    is_nvidia = _matches(_NVIDIA_NAME, name) or has_tool("nvidia-smi")
    return ("nvidia" if is_nvidia else None), api


def _lookalike(name: str) -> str | None:
    """Name first, then packages in this process, then tools, which say only what is installed."""
    if _matches(_NVIDIA_NAME, name) or _matches(_AMD_NAME, name):
        return None
    makers = LOOKALIKES.items()
    by_name = [vendor for vendor, maker in makers if _matches(maker.name_pattern, name)]
    by_module = [vendor for vendor, maker in makers if maker.module in sys.modules]
    by_tool = [vendor for vendor, maker in makers if maker.tool and has_tool(maker.tool)]
    return next(iter(by_name + by_module + by_tool), None)


def has_tool(*names: str) -> bool:
    """Whether one of these programs is on the path."""
    return any(shutil.which(name) for name in names)


def _matches(pattern: str, name: str) -> bool:
    return re.search(pattern, name, flags=re.IGNORECASE) is not None


def _join(name: str, version: str | None) -> str:
    return f"{name} {version}" if version else name
