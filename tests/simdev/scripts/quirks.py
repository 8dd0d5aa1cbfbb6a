"""Run in a child process with SIMDEV_QUIRKS: what raises, what is wrong, as one JSON object."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

DEVICE = "simdev"


def attempt(action: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": action()}
    except (RuntimeError, TypeError, AttributeError) as error:
        return {"raised": type(error).__name__, "text": str(error)}


def relative_error(dtype: torch.dtype) -> float:
    values = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    product = (values.to(DEVICE, dtype) @ values.to(DEVICE, dtype)).cpu().float()
    expected = values @ values
    return ((product - expected).norm() / expected.norm()).item()


def record_event() -> float:
    start = torch.Event(device=DEVICE, enable_timing=True)
    end = torch.Event(device=DEVICE, enable_timing=True)
    start.record()
    end.record()
    return start.elapsed_time(end)


def queue_times_ms() -> dict[str, Any]:
    """Fifty operators: when Python came back, when the device was done, what events say."""
    values = torch.ones(8, device=DEVICE)
    start = torch.Event(device=DEVICE, enable_timing=True)
    end = torch.Event(device=DEVICE, enable_timing=True)
    torch.accelerator.synchronize()
    began_s = time.perf_counter()
    start.record()
    for _ in range(50):
        values.relu_()
    end.record()
    returned_s = time.perf_counter()
    is_done_at_once = end.query()
    early = attempt(lambda: start.elapsed_time(end))
    torch.accelerator.synchronize()
    done_s = time.perf_counter()
    values.relu_()
    values.sum().item()
    return {
        "returned": 1e3 * (returned_s - began_s),
        "synchronized": 1e3 * (done_s - began_s),
        "events": start.elapsed_time(end),
        "item": 1e3 * (time.perf_counter() - done_s),
        "is_done_at_once": is_done_at_once,
        "early": early,
    }


ATTEMPTS: dict[str, Callable[[], Any]] = {
    "float32": lambda: relative_error(torch.float32),
    "float64": lambda: relative_error(torch.float64),
    "bfloat16": lambda: relative_error(torch.bfloat16),
    "float16": lambda: relative_error(torch.float16),
    "complex128": lambda: torch.ones(2, dtype=torch.complex128).to(DEVICE).abs().sum().item(),
    "amp_dtypes": lambda: [str(dtype) for dtype in torch.simdev.get_amp_supported_dtype()],
    "memory_allocated": lambda: torch.accelerator.memory_allocated() >= 0,
    "module_memory_allocated": lambda: torch.simdev.memory_allocated() >= 0,
    "event": lambda: record_event() >= 0,
    "queue_ms": queue_times_ms,
    "module_event": lambda: torch.simdev.Event(enable_timing=True) is not None,
    "pin_memory": lambda: torch.ones(3).pin_memory().is_pinned(),
    "count": torch.accelerator.device_count,
    "device_0": lambda: torch.ones(3, device=f"{DEVICE}:0").sum().item(),
    "device_1": lambda: torch.ones(3, device=f"{DEVICE}:1").sum().item(),
    "48_mib": lambda: torch.empty(48 * 2**20, dtype=torch.uint8, device=DEVICE).numel(),
    "128_mib": lambda: torch.empty(128 * 2**20, dtype=torch.uint8, device=DEVICE).numel(),
    "48_mib_again": lambda: torch.empty(48 * 2**20, dtype=torch.uint8, device=DEVICE).numel(),
    "total_bytes": lambda: torch.simdev.get_device_properties().total_memory,
}


if __name__ == "__main__":
    json.dump({name: attempt(action) for name, action in ATTEMPTS.items()}, sys.stdout)
