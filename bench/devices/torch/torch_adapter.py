"""The adapter for whatever torch runs on: one class for accelerators, one for the CPU.

`torch.accelerator` speaks only for one device type of a machine and vendors fill in parts of it, so
every answer is looked for there and in `torch.<type>`; nothing found gives None. Errors of
`synchronize` are not caught: that is where a device reports that earlier work failed. Nothing
touches the device before it is asked, so that making a context can be timed.
"""

import errno
import functools
import math
import re
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.devices.telemetry.common import Telemetry
from bench.devices.telemetry.readers import open_telemetry
from bench.devices.torch.adapter import Adapter, DeviceEvent
from bench.devices.torch.backends import attempt, device_module
from bench.devices.torch.detect import current_accelerator_type, describe, locate

_OUT_OF_MEMORY = re.compile(
    # Each vendor's words; CUDA_ERROR_OUT_OF_MEMORY and other driver codes; hipErrorOutOfMemory.
    r"out[ _]?of[ _]?((device|host)_)?memory"
    r"|(cublas|cudnn)_status_alloc_failed"
    # DefaultCPUAllocator; mmap, shared memory of loader workers; DefaultCPUAllocator on Windows.
    r"|can't allocate memory|cannot allocate memory|not enough memory",
    re.IGNORECASE,
)
_CHECK_PAUSE_S = 0.005


def adapter_for(label: str) -> Adapter:
    """Return the adapter of a device that is here; another label raises `UsageError`."""
    device_type, index = locate(label)
    return Adapter() if device_type == "cpu" else _AcceleratorAdapter(device_type, index)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this exception says that device or host memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


class _AcceleratorAdapter(Adapter):
    """Any device type that torch knows besides the CPU."""

    is_asynchronous = True

    def __init__(self, device_type: str, index: int) -> None:
        self.label = f"{device_type}:{index}"
        self._type = device_type
        self._index = index
        self._module = device_module(device_type)
        self._can_reset_peak = True

    def make_current(self) -> None:
        self._call("set_device_index", self._index, own="set_device")

    def _call(self, function: str, *arguments: int, own: str = "") -> bool:
        """Call torch.accelerator's function or, where that fails, the module's; whether one did."""
        generic: Any = torch.accelerator
        return (
            self._speaks_for_type and _answers(lambda: getattr(generic, function)(*arguments))
        ) or _answers(lambda: getattr(self._module, own or function)(*arguments))

    def synchronize(self) -> None:
        self._synchronize()

    @functools.cached_property
    def _synchronize(self) -> Callable[[], None]:
        """Pick the first way to wait that works; a device that cannot even copy raises."""
        ways: list[Callable[[], None]] = []
        if self._speaks_for_type:
            ways.append(functools.partial(torch.accelerator.synchronize, self._index))
        if self._type == "mps":
            ways.append(torch.mps.synchronize)
        elif hasattr(self._module, "synchronize"):
            ways.append(functools.partial(self._module.synchronize, self._index))
        for way in ways:
            if _answers(way):
                return way
            self._wait_by_copy()
        return self._wait_by_copy

    def _wait_by_copy(self) -> None:
        torch.zeros((), device=self.label).cpu()

    @functools.cached_property
    def _speaks_for_type(self) -> bool:
        return current_accelerator_type() == self._type

    def make_event(self) -> DeviceEvent | None:
        return None if self._event_factory is None else self._event_factory()

    @functools.cached_property
    def _event_factory(self) -> Callable[[], DeviceEvent] | None:
        if self._type == "mps":
            return None  # elapsed times are wrong: https://github.com/pytorch/pytorch/issues/196395
        for source in (torch.accelerator, self._module):
            factory = functools.partial(self._event_of, source)
            if attempt(functools.partial(self._keeps_time, factory)):
                return factory
        return None

    def _event_of(self, source: Any) -> DeviceEvent:
        def stream() -> Any:
            return source.current_stream(self._index)

        if source is torch.accelerator:
            has_stream = self._speaks_for_type and _answers(stream)
            event: Any = torch.Event(device=self.label, enable_timing=True)
        else:
            has_stream, event = _answers(stream), source.Event(enable_timing=True)
        return DeviceEvent(event, current_stream=stream if has_stream else None)

    def _keeps_time(self, factory: Callable[[], DeviceEvent]) -> bool:
        """Whether a pause between two marks comes out as neither less than half nor too long."""
        start, end = factory(), factory()
        begin_s = time.perf_counter()
        start.record()
        torch.ones(64, device=self.label).sum()
        self.synchronize()
        time.sleep(_CHECK_PAUSE_S)
        end.record()
        end.synchronize()
        self.synchronize()
        if not (start.query() and end.query()):
            return False
        elapsed_s = start.elapsed_ms(end) / 1e3
        wall_s = time.perf_counter() - begin_s
        return math.isfinite(elapsed_s) and _CHECK_PAUSE_S / 2 <= elapsed_s <= wall_s * 1.01

    def _memory(self, stat: str, *, function: str) -> int | None:
        """Statistic of torch's allocator; None where it was not measured or could not be reset."""
        if stat.endswith(".peak") and not self._can_reset_peak:
            return None
        stats: Any = None
        if self._speaks_for_type:
            stats = attempt(lambda: torch.accelerator.memory_stats(self._index))
        stats = stats or attempt(lambda: self._module.memory_stats(self._index)) or {}
        # The functions answer 0 for "not counted", so their 0 is not believed.
        value = stats.get(stat)
        if value is None:
            value = attempt(lambda: getattr(self._module, function)(self._index)) or None
        return None if value is None else int(value)

    def reset_peak_memory(self) -> None:
        """Start a new peak; where that cannot be done, peaks are None from then on."""
        self._can_reset_peak = self._call("reset_peak_memory_stats", self._index)

    def peak_allocated_bytes(self) -> int | None:
        return self._memory("allocated_bytes.all.peak", function="max_memory_allocated")

    def peak_reserved_bytes(self) -> int | None:
        return self._memory("reserved_bytes.all.peak", function="max_memory_reserved")

    def reserved_bytes(self) -> int | None:
        if self._type == "mps":
            return attempt(lambda: int(torch.mps.driver_allocated_memory()))
        return self._memory("reserved_bytes.all.current", function="memory_reserved")

    def compute_clock_hz(self) -> float | None:
        telemetry = self._telemetry
        return None if telemetry is None else telemetry.sample(with_memory=False).sm_clock_hz

    @functools.cached_property
    def _telemetry(self) -> Telemetry | None:
        return open_telemetry(describe(self._type, self._index))

    def empty_cache(self) -> None:
        self._call("empty_cache")


def _answers(call: Callable[[], object]) -> bool:
    """Whether a call works here; its answer may be None."""
    return attempt(lambda: (call(),)) is not None
