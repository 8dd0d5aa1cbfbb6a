"""Pretend backends for tests: modules that torch would have had, put in its place for one test."""

import types
from typing import Any

import pytest
import torch


def refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("not implemented by this vendor")


def add_backend(
    monkeypatch: pytest.MonkeyPatch,
    device_type: str,
    *,
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
    for name, value in attributes.items():
        setattr(module, name, value)
    monkeypatch.setattr(torch, device_type, module, raising=False)
    return module


def choose_accelerator(monkeypatch: pytest.MonkeyPatch, device_type: str | None) -> None:
    """Let `torch.accelerator` speak for this device type, or for none."""
    device = None if device_type is None else types.SimpleNamespace(type=device_type)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: device is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: device)
