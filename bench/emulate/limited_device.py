"""Cuts this process's device down to fewer compute units and less memory.

On a GPU a green context holds the units and the allocator's cap the memory; on a CPU the affinity
and the limit on data. A driver may grant fewer units than asked and torch cannot say how many, so a
kernel that reports where it runs counts them. Memory bandwidth, L2 and clocks stay whole, and
libraries still choose their tiles for the whole chip.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.core.errors import MeasurementError, UsageError
from bench.core.units import format_bytes
from bench.emulate.link.gpu_kernel import GpuKernels
from bench.hardware.chip_limit import ChipLimit, check_device

COUNT_UNITS = """
extern "C" __global__ void count_units(int* seen, long long cycles) {
    unsigned int unit;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(unit));
    long long start = clock64();
    while (clock64() - start < cycles) { }
    if (threadIdx.x == 0) atomicAdd(&seen[unit], 1);
}
"""
_BLOCKS_PER_UNIT = 64
_SPIN_CYCLES = 20_000
"""Long enough that no unit finishes all blocks before another has begun."""
_MAX_UNITS = 4096


@dataclass(frozen=True, kw_only=True)
class Granted:
    """What was really cut away; keep it as long as the limit shall hold."""

    label: str
    """`this device with 72 SMs (78 asked), 24.0 GB of memory`."""
    sms: int | None = None
    """Units that kernels were seen on; None where they were not limited."""
    keep: Any = field(repr=False, default=None)
    """The green context; its stream is the current one of this thread."""


def apply_chip_limit(limit: ChipLimit, device: torch.device) -> Granted:
    """Cut the device down for the rest of this process, before the net is built.

    `UsageError` where the device has not as much as is asked, `MeasurementError` where the driver
    or this torch cannot do it.
    """
    check_device(limit, device_type=device.type)
    if device.type != "cpu":
        return _limit_cuda(limit, device)
    if limit.cores is not None:
        _limit_cores(limit.cores)
    if limit.memory_bytes is not None:
        _limit_memory(limit.memory_bytes)
    return Granted(label=limit.label())


def _limit_cuda(limit: ChipLimit, device: torch.device) -> Granted:
    properties = torch.cuda.get_device_properties(device)
    if limit.memory_bytes is not None:
        total = int(properties.total_memory)
        _check_memory(limit.memory_bytes, there=total)
        torch.cuda.set_per_process_memory_fraction(limit.memory_bytes / total, device)
    context, granted = None, None
    if limit.sms is not None:
        there = int(properties.multi_processor_count)
        if limit.sms > there:
            raise UsageError(f"--chip-limit sms={limit.sms}: {properties.name} has {there}")
        context = _green_context(limit.sms, device)
        torch.cuda.set_stream(context.Stream())
        granted = count_units(device)
    return Granted(label=limit.label(sms_granted=granted), sms=granted, keep=context)


def _green_context(sms: int, device: torch.device) -> Any:
    from torch.cuda.green_contexts import GreenContext

    # 2.10 can only make the context current in one thread, and backward runs in another.
    if not hasattr(GreenContext, "Stream"):
        raise MeasurementError(
            f"--chip-limit sms needs torch 2.11 or newer, this is {torch.__version__}"
        )
    index = torch.cuda.current_device() if device.index is None else device.index
    try:
        return GreenContext.create(num_sms=sms, device_id=index)
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise MeasurementError(f"the driver grants no context of {sms} SMs: {first}") from error


def count_units(device: torch.device) -> int:
    """Count the compute units that kernels of the current stream run on."""
    seen = torch.zeros(_MAX_UNITS, dtype=torch.int32, device=device)
    kernels = GpuKernels(COUNT_UNITS, device=device)
    units = int(torch.cuda.get_device_properties(device).multi_processor_count)
    torch.cuda.synchronize(device)
    with torch.cuda.device(device):
        kernels.launch(
            "count_units",
            seen,
            _SPIN_CYCLES,
            stream=torch.cuda.current_stream(device),
            grid=units * _BLOCKS_PER_UNIT,
            block=32,
        )
    torch.cuda.synchronize(device)
    return int((seen > 0).sum().item())


def _limit_cores(cores: int) -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise MeasurementError("--chip-limit cores needs Linux: elsewhere a process keeps all")
    there = sorted(os.sched_getaffinity(0))
    if cores > len(there):
        raise UsageError(f"--chip-limit cores={cores}: this process may use {len(there)}")
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), there[:cores])
        except ProcessLookupError:
            continue  # a thread that has just ended
    torch.set_num_threads(cores)


def _limit_memory(memory_bytes: int) -> None:
    import resource

    import psutil

    _check_memory(memory_bytes, there=int(psutil.virtual_memory().total))
    # Not RLIMIT_AS: torch and its libraries reserve far more addresses than they use.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _check_memory(memory_bytes: int, *, there: int) -> None:
    if memory_bytes > there:
        raise UsageError(
            f"--chip-limit memory={format_bytes(memory_bytes)}: there are {format_bytes(there)}"
        )
