"""Which torch backends are installed, and who made the chip behind one.

Most vendors outside torch ship a package that adds a device type (`npu`, `mlu`, ...) or imitates
`cuda`. Autoload imports most of them with torch, not all, so a short list is tried once; what
fails is kept as a reason, never raised. "cuda" says nothing about the maker: five vendors imitate
it, so the maker is told from the device's name, loaded packages, torch's build and vendor tools.
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
from typing import TypeVar

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


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that adds a backend to torch by being imported."""

    module: str
    adds_type: bool = True
    """It takes torch's one slot for an added device type; False where it imitates cuda."""


PACKAGES = (
    Package(module="torch_npu"),
    Package(module="torch_mlu"),
    Package(module="torch_musa"),
    Package(module="torch_gcu"),
    Package(module="torch_br"),
    Package(module="torch_xmlir", adds_type=False),
    Package(module="habana_frameworks.torch", adds_type=False),
)

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


@dataclass(frozen=True, kw_only=True)
class Lookalike:
    """How to recognise one maker among all that answer to `cuda`."""

    vendor: str
    platform: str
    """What the vendor calls its CUDA or HIP replacement."""
    name_pattern: str
    modules: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


# Tools and names: each vendor's manual; MetaX's early drivers call the C500 just "4000" or "4001".
LOOKALIKES = (
    Lookalike(
        vendor="iluvatar",
        platform="CoreX",
        name_pattern=r"iluvatar|\b(BI|MR)-V\d+",
        tools=("ixsmi",),
    ),
    Lookalike(
        vendor="metax",
        platform="MACA",
        name_pattern=r"metax|\bMX[CN]\d{3}|^400[01]$",
        tools=("mx-smi",),
    ),
    Lookalike(vendor="alibaba", platform="PPU", name_pattern=r"\bPPU\b|T-Head|ZW\d{3}|Zhenwu"),
    Lookalike(
        vendor="baidu",
        platform="XPyTorch",
        name_pattern=r"kunlun|\bP800\b|\bR[23]00\b",
        modules=("torch_xmlir",),
    ),
    Lookalike(
        vendor="hygon",
        platform="DTK",
        name_pattern=r"hygon|\bDCU|\bK100(_|\b)|\bZ100|\bBW\d{3,4}\b",
        tools=("hy-smi",),
    ),
)

_NVIDIA_NAME = r"nvidia|tesla|geforce|quadro|\bRTX\b|\bGRID\b"
_AMD_NAME = r"\bAMD\b|radeon|instinct|\bMI\d{2,3}\w?\b"


@dataclass(frozen=True, kw_only=True)
class Import:
    """What came of one package."""

    module: str
    state: str
    """loaded, skipped, missing or failed."""
    reason: str = ""


def registered_type() -> str | None:
    """Name of the device type that a package has added to torch, or None."""
    name = torch._C._get_privateuse1_backend_name()
    return None if name == "privateuseone" else name


@functools.cache
def load_packages() -> tuple[Import, ...]:
    """Import every vendor package that is installed and not loaded yet, once per process."""
    return tuple(_load(package) for package in PACKAGES)


def _load(package: Package) -> Import:
    if package.module in sys.modules:
        return Import(module=package.module, state="loaded", reason="with torch")
    if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0":
        # The user's way out of a package that breaks torch: importing it here would undo that.
        reason = "TORCH_DEVICE_BACKEND_AUTOLOAD=0"
        return Import(module=package.module, state="skipped", reason=reason)
    taken = registered_type()
    if package.adds_type and taken is not None:
        reason = f"torch has one added device type already: {taken}"
        return Import(module=package.module, state="skipped", reason=reason)
    try:
        importlib.import_module(package.module)
    except ModuleNotFoundError as error:
        if error.name and (package.module + ".").startswith(error.name + "."):
            return Import(module=package.module, state="missing", reason="not installed")
        return Import(module=package.module, state="failed", reason=_one_line(error))
    except (ImportError, RuntimeError, OSError) as error:
        return Import(module=package.module, state="failed", reason=_one_line(error))
    return Import(module=package.module, state="loaded", reason="by the harness")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


def device_module(device_type: str) -> ModuleType | None:
    """`torch.cuda` for cuda, `torch.npu` for npu, ...; None where torch has none."""
    module = getattr(torch, device_type, None)
    return module if isinstance(module, ModuleType) else None


def identify(device_type: str, *, name: str) -> tuple[str | None, str]:
    """Vendor and software stack behind a device; the vendor is None where nothing tells."""
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
    api = (
        _join("HIP", torch.version.hip) if torch.version.hip else _join("CUDA", torch.version.cuda)
    )
    lookalike = _lookalike(name)
    if lookalike is not None:
        return lookalike.vendor, f"{lookalike.platform} ({api})"
    if torch.version.hip:
        stack = _join("ROCm", getattr(torch.version, "rocm", None) or torch.version.hip)
        is_amd = _matches(_AMD_NAME, name) or has_tool("rocm-smi", "amd-smi", "rocminfo")
        return ("amd" if is_amd else None), stack
    is_nvidia = _matches(_NVIDIA_NAME, name) or has_tool("nvidia-smi")
    return ("nvidia" if is_nvidia else None), api


def _lookalike(name: str) -> Lookalike | None:
    """Name first, then packages in this process, then tools, which say only what is installed."""
    if _matches(_NVIDIA_NAME, name) or _matches(_AMD_NAME, name):
        return None
    for lookalike in LOOKALIKES:
        if _matches(lookalike.name_pattern, name):
            return lookalike
    for lookalike in LOOKALIKES:
        if any(module in sys.modules for module in lookalike.modules):
            return lookalike
    for lookalike in LOOKALIKES:
        if has_tool(*lookalike.tools):
            return lookalike
    return None


def has_tool(*names: str) -> bool:
    """Whether one of these programs is on the path."""
    return any(shutil.which(name) for name in names)


def _matches(pattern: str, name: str) -> bool:
    return re.search(pattern, name, flags=re.IGNORECASE) is not None


def _join(name: str, version: str | None) -> str:
    return f"{name} {version}" if version else name
