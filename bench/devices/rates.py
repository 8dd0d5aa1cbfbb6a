"""How fast a device multiplies matrices and copies memory: the timing behind `roof`.

Host wall clock over a batch of calls between two synchronisations, after a warm-up that lets the
clocks rise; a shape counts with the median of its repeats, never its best. Shapes grow until time
or memory is used up. Left out: shapes tuned to one chip, and rates sustained for minutes, which a
power limit may hold below those of a short burst.
"""

import math
import statistics
import time
from collections.abc import Callable

import torch

from bench.core.nouns import Device
from bench.devices.adapter import Adapter
from bench.devices.caches import largest_cache_bytes
from bench.devices.detect import memory_info
from bench.devices.probe import TORCH_DTYPES, float32_precision, has_tf32_switch

_CPU_SIDES = (512, 1024, 2048, 4096)
_ACCELERATOR_SIDES = (1024, 2048, 4096, 8192, 16384)
_NUM_REPEATS = 5
_WARMUP_S = {"cpu": 0.05, "accelerator": 0.25}
_BATCH_S = {"cpu": 0.05, "accelerator": 0.1}
_COPY_BYTES = {"cpu": 256 * 2**20, "accelerator": 2**30}
_CACHE_MULTIPLE = 8


def best_product(device: Device, *, adapter: Adapter, dtype: str, budget_s: float) -> float | None:
    """Best rate over the shapes that time and memory allow; None where the dtype is unsupported."""
    deadline_s = time.perf_counter() + budget_s
    if dtype == "tf32" and not has_tf32_switch(device.label):
        return None
    best: float | None = None
    for side in _CPU_SIDES if device.type == "cpu" else _ACCELERATOR_SIDES:
        flops = 2.0 * side**3
        left_s = deadline_s - time.perf_counter()
        if best is not None and not _fits(flops / best, left_s=left_s, device=device):
            break
        if best is not None and not _has_room(device, num_bytes=side**2 * 3 * 8):
            break
        try:
            call_s = _product_s(device, adapter=adapter, dtype=dtype, side=side, budget_s=left_s)
        except (RuntimeError, TypeError) as error:
            if best is None and not adapter.is_out_of_memory(error):
                return None
            if not adapter.is_out_of_memory(error):
                raise
            break
        best = max(best or 0.0, flops / call_s)
    return best


def _fits(call_s: float, *, left_s: float, device: Device) -> bool:
    """Whether a shape can be warmed up and repeated in what is left of the budget."""
    kind = _kind(device)
    return _WARMUP_S[kind] + call_s + _NUM_REPEATS * max(_BATCH_S[kind], call_s) <= left_s


def _has_room(device: Device, *, num_bytes: int) -> bool:
    free_bytes = _free_bytes(device)
    return free_bytes is None or num_bytes <= free_bytes // 4


def _free_bytes(device: Device) -> int | None:
    if device.type != "cpu":
        info = memory_info(device.type, device.index)
        if info is not None:
            return info[0]
    return device.memory_free_bytes or device.memory_bytes


def _product_s(
    device: Device, *, adapter: Adapter, dtype: str, side: int, budget_s: float
) -> float:
    """Seconds of one product of two square matrices."""
    # A tile, repeated: 16384 squared random numbers would take the CPU longer than the products.
    tile_side = min(side, 1024)
    generator = torch.Generator().manual_seed(side)
    left, right = (
        torch.randn(tile_side, tile_side, generator=generator)
        .to(device.label, TORCH_DTYPES[dtype])
        .repeat(side // tile_side, side // tile_side)
        for _ in range(2)
    )
    product = torch.empty_like(left)
    with torch.inference_mode(), float32_precision(dtype):
        return _call_s(
            lambda: torch.mm(left, right, out=product),
            adapter=adapter,
            kind=_kind(device),
            budget_s=budget_s,
        )


def copy_rate(device: Device, *, adapter: Adapter, budget_s: float) -> float | None:
    """Bytes read plus written per second; None where the buffers do not fit."""
    num_bytes = max(_COPY_BYTES[_kind(device)], _CACHE_MULTIPLE * largest_cache_bytes(device))
    free_bytes = _free_bytes(device)
    if free_bytes is not None:
        num_bytes = min(num_bytes, free_bytes // 8)
    tile = torch.randn(2**18, generator=torch.Generator().manual_seed(0))
    try:
        # Both buffers are written first: reading pages never written costs nothing on Linux.
        source = tile.to(device.label).repeat(max(1, num_bytes // 2**20))
        target = source.clone()
        call_s = _call_s(
            lambda: target.copy_(source), adapter=adapter, kind=_kind(device), budget_s=budget_s
        )
    except RuntimeError as error:
        if not adapter.is_out_of_memory(error):
            raise
        return None
    return 2.0 * source.numel() * source.element_size() / call_s


def _call_s(call: Callable[[], object], *, adapter: Adapter, kind: str, budget_s: float) -> float:
    """Median over repeats of the seconds per call; warmed up until the clocks have risen."""
    deadline_s = time.perf_counter() + budget_s
    one_s = _timed_s(call, adapter=adapter, num_calls=1)
    begin_s = time.perf_counter()
    while time.perf_counter() - begin_s < min(_WARMUP_S[kind], budget_s / 4):
        one_s = _timed_s(call, adapter=adapter, num_calls=max(1, math.ceil(0.01 / one_s)))
    num_calls = max(1, math.ceil(_BATCH_S[kind] / one_s))
    samples_s: list[float] = []
    while len(samples_s) < _NUM_REPEATS and (
        not samples_s or time.perf_counter() + num_calls * one_s <= deadline_s
    ):
        samples_s.append(_timed_s(call, adapter=adapter, num_calls=num_calls))
    return statistics.median(samples_s)


def _timed_s(call: Callable[[], object], *, adapter: Adapter, num_calls: int) -> float:
    """Seconds per call of a batch, synchronised at both ends."""
    adapter.synchronize()
    begin_s = time.perf_counter()
    for _ in range(num_calls):
        call()
    adapter.synchronize()
    return (time.perf_counter() - begin_s) / num_calls


def _kind(device: Device) -> str:
    return "cpu" if device.type == "cpu" else "accelerator"
