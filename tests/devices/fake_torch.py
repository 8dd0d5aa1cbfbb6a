"""Pretend backends for tests: modules that torch would have had, put in its place for one test."""

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.devices.torch import backends


def refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("not implemented by this vendor")


def properties(name: str, **others: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(name=name, **others)


def add_backend(
    monkeypatch: pytest.MonkeyPatch,
    device_type: str,
    *,
    get_device_properties: Callable[[int], Any] | None = None,
    num_devices: int = 1,
    is_available: bool = True,
    **functions: Any,
) -> types.ModuleType:
    """Give torch a module for a device type, with only the functions named."""
    module = types.ModuleType(f"torch.{device_type}")
    attributes: dict[str, Any] = {
        "is_available": lambda: is_available,
        "device_count": lambda: num_devices,
        **functions,
    }
    if get_device_properties is not None:
        attributes["get_device_properties"] = get_device_properties
    for name, value in attributes.items():
        setattr(module, name, value)
    monkeypatch.setattr(torch, device_type, module, raising=False)
    return module


def choose_accelerator(monkeypatch: pytest.MonkeyPatch, device_type: str | None) -> None:
    """Let `torch.accelerator` speak for this device type, or for none."""
    device = None if device_type is None else types.SimpleNamespace(type=device_type)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: device is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: device)


def build_torch_with(
    monkeypatch: pytest.MonkeyPatch, *, cuda: str | None = None, hip: str | None = None
) -> None:
    """Pretend that torch was built for CUDA or HIP."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.version, "rocm", hip and "7.1.0", raising=False)


def install_tools(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Pretend that exactly these programs are on the path."""
    monkeypatch.setattr(
        backends.shutil, "which", lambda name: f"/usr/bin/{name}" if name in names else None
    )
