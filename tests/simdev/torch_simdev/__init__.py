"""The simulated device's Python side, loaded by `import torch` through its entry point.

It does what vendor packages do: load the library, rename the backend, register `torch.simdev`.
Everything behind it is on `torch.accelerator`, or on the module where older torch code looks.
"""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

# SIMDEV_QUIRKS is a comma list of these: what vendors lack or get wrong.
_FLAGS = {
    "no_float64": "TypeError on float64 and complex128",
    "no_bf16": "RuntimeError on bfloat16, and autocast switches itself off with a warning",
    "wrong_fp16": "matrix products in float16 are too large by an eighth",
    "no_memory_stats": "memory statistics raise, on torch.accelerator and on torch.simdev",
    "no_events": "events raise when recorded",
    "fail_device_1": "device 1 is counted, and raises when used",
    "no_pin_memory": "pinning host memory raises",
}
_AMOUNTS = {
    "oom_above=": "bytes of memory per device; beyond it a plain RuntimeError in vendors' words",
    "queue_us=": "microseconds of device time per operator, which pass asynchronously",
}


def _read_quirks() -> set[str]:
    listed = {item for item in os.environ.get("SIMDEV_QUIRKS", "").split(",") if item}
    unknown = {
        item for item in listed if item not in _FLAGS and not item.startswith(tuple(_AMOUNTS))
    }
    if unknown:
        raise ValueError(f"SIMDEV_QUIRKS: unknown {sorted(unknown)}; known: {[*_FLAGS, *_AMOUNTS]}")
    return listed


_QUIRKS = _read_quirks()
_MEMORY_BYTES = next(
    (int(item.partition("=")[2]) for item in _QUIRKS if item.startswith("oom_above=")), 16 * 2**30
)


def is_available() -> bool:
    return True


def device_count() -> int:
    return 2


def is_initialized() -> bool:
    return True


def init() -> None:
    """Nothing to start."""


_lazy_init = init


def _is_in_bad_fork() -> bool:
    return False


current_device = torch.accelerator.current_device_index
set_device = torch.accelerator.set_device_index
synchronize = torch.accelerator.synchronize
current_stream = torch.accelerator.current_stream
set_stream = torch.accelerator.set_stream


class Stream(torch.Stream):
    """Vendor modules offer it, and torch's FSDP asks for it; there is one stream per device."""

    def __new__(cls, device: Any = "simdev", priority: int = 0) -> "Stream":
        return super().__new__(cls, device=device, priority=priority)


def stream(chosen: torch.Stream) -> torch.Stream:
    """`with torch.simdev.stream(s):`; a torch.Stream is a context manager already."""
    return chosen


class device(torch.accelerator.device_index):  # noqa: N801 - vendor modules call it so
    """`with torch.simdev.device(1):`, which takes an index, a string or a torch.device."""

    def __init__(self, where: Any) -> None:
        named = isinstance(where, str | torch.device)
        super().__init__(torch.device(where).index if named else where)


def get_device_name(index: Any = None) -> str:
    return "Simulated Device"


def get_device_properties(index: Any = None) -> SimpleNamespace:
    # What is free is less than what there is, and only the statistics have it.
    has_statistics = "no_memory_stats" not in _QUIRKS
    total_bytes = max(16 * 2**30, _MEMORY_BYTES) if has_statistics else _MEMORY_BYTES
    return SimpleNamespace(name=get_device_name(index), total_memory=total_bytes)


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16] if "no_bf16" in _QUIRKS else [torch.float16, torch.bfloat16]


# Random numbers come from the CPU's generator, which torch.manual_seed has seeded already.
def manual_seed(seed: int) -> None:
    """Nothing of its own to seed."""


manual_seed_all = manual_seed


def get_rng_state(index: Any = "simdev") -> torch.Tensor:
    return torch.get_rng_state()


def set_rng_state(new_state: torch.Tensor, index: Any = "simdev") -> None:
    torch.set_rng_state(new_state)


if "no_memory_stats" not in _QUIRKS:
    memory_allocated = torch.accelerator.memory_allocated
    memory_reserved = torch.accelerator.memory_reserved
    max_memory_allocated = torch.accelerator.max_memory_allocated
    max_memory_reserved = torch.accelerator.max_memory_reserved
    memory_stats = torch.accelerator.memory_stats
    reset_peak_memory_stats = torch.accelerator.reset_peak_memory_stats
    empty_cache = torch.accelerator.empty_cache
    mem_get_info = torch.accelerator.get_memory_info

if "no_events" not in _QUIRKS:

    class Event(torch.Event):
        """`torch.simdev.Event(enable_timing=True)`, as vendor modules offer it."""

        def __new__(cls, enable_timing: bool = False) -> "Event":
            return super().__new__(cls, device="simdev", enable_timing=enable_timing)


def autoload() -> None:
    """The `torch.backends` entry point."""
    import sys

    torch.utils.rename_privateuse1_backend("simdev")
    torch._register_device_module("simdev", sys.modules[__name__])
    torch.ops.load_library(str(Path(__file__).with_name("libtorch_simdev.so")))
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
