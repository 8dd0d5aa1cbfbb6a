"""How fast a device multiplies matrices, convolves and copies memory: the timing behind `roof`.

Host wall clock over a batch of calls between two synchronisations, after a warm-up that lets the
clocks rise; a shape counts with the median of its repeats, never its best. An accelerator's largest
products come first, because they are the fastest there, and a power limit shows only over seconds:
so the best shape runs once more, for `SUSTAINED_S`. Left out: shapes tuned to one chip.
"""

import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.core.errors import UsageError
from bench.core.nouns import Device
from bench.core.units import parse_bytes
from bench.devices.torch.adapter import Adapter
from bench.devices.torch.backends import REFUSALS, attempt, device_module
from bench.devices.torch.detect import memory_info
from bench.devices.torch.probe import TORCH_DTYPES, has_tf32_switch
from bench.devices.torch.torch_adapter import is_out_of_memory

SIDES = {"cpu": (512, 1024, 2048, 4096), "accelerator": (8192, 16384, 4096, 2048, 1024)}
"""Sides of the square products, in the order in which they are measured."""
LAYOUTS = {"cpu": ("NN",), "accelerator": ("NN", "NT")}
"""NT: the right matrix is stored transposed, as the weights of `nn.Linear` are."""
CONVOLUTION_SIDES = {"cpu": (16, 32), "accelerator": ()}
"""Sides of the volumes of 3x3x3 convolutions, channels last, smallest first.

A processor's library may convolve much faster than it multiplies: oneDNN reaches 1.3 to 2 times
what MKL does on AMD's. An accelerator's convolutions run on the products' units.
"""
_CHANNELS = 128
SUSTAINED_S = 2.0
_NUM_REPEATS = 5
_WARMUP_S = {"cpu": 0.05, "accelerator": 0.3}
_NEXT_WARMUP_S = 0.05
"""Warm-up of all shapes but the first: the clocks have risen, but the kernel is a new one."""
_BATCH_S = {"cpu": 0.05, "accelerator": 0.03}
_COPY_BYTES = {"cpu": 256 * 2**20, "accelerator": 2**30}
_CACHE_MULTIPLE = 8
"""A copy must be larger than the last cache to measure memory."""
_CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")

Shape = tuple[int, str]
"""Side and layout."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What is timed: a dtype on a device; the caller sets inference mode and the precision."""

    device: Device
    adapter: Adapter
    dtype: str = "fp32"

    @property
    def kind(self) -> str:
        """Key of the tables above."""
        return "cpu" if self.device.type == "cpu" else "accelerator"


def product_rates(timed: Timed, *, budget_s: float) -> dict[Shape, float]:
    """FLOP/s of each shape that time and memory allow; empty where the dtype is unsupported.

    The search ends at a side that is slower than a larger one. Its budget begins after the first
    calls, which load the vendor's library.
    """
    if timed.dtype == "tf32" and not has_tf32_switch(timed.device.label):
        return {}
    kind, rates = timed.kind, dict[Shape, float]()
    try:
        guess = _first_rate(timed, side=min(SIDES[kind]))
    except REFUSALS:
        return {}
    deadline_s = time.perf_counter() + budget_s
    for side, layout in itertools.product(SIDES[kind], LAYOUTS[kind]):
        if layout != "NN" and (side, "NN") not in rates:
            continue
        if layout == "NN" and rates and list(rates)[-1][0] < max(rates, key=rates.__getitem__)[0]:
            break
        warmup_s = _NEXT_WARMUP_S if rates else _WARMUP_S[kind]
        call_s = 2.0 * side**3 / (rates.get((side, "NN")) or max(rates.values(), default=guess))
        needed_s = warmup_s + call_s + _NUM_REPEATS * max(_BATCH_S[kind], call_s)
        needed_bytes = 3 * side**2 * TORCH_DTYPES[timed.dtype].itemsize
        free_bytes, left_s = _free_bytes(timed.device), deadline_s - time.perf_counter()
        fits = needed_s <= left_s and (free_bytes is None or needed_bytes <= free_bytes // 4)
        if not fits and (rates or side != min(SIDES[kind])):  # the last hope is tried all the same
            continue
        make = functools.partial(_product, timed, shape=(side, layout))
        measured_s = _call_s(make, timed=timed, budget_s=left_s, warmup_s=warmup_s)
        if measured_s is not None:
            rates[side, layout] = 2.0 * side**3 / measured_s
    return rates


def convolution_rates(timed: Timed, *, budget_s: float) -> dict[Shape, float]:
    """FLOP/s of each 3x3x3 convolution that the budget allows; empty where there is none."""
    deadline_s = time.perf_counter() + budget_s
    rates = dict[Shape, float]()
    for side in CONVOLUTION_SIDES[timed.kind]:
        shape, make = (side, "3x3x3"), functools.partial(_convolution, timed, side=side)
        try:
            guess = rates or {shape: _trial_rate(timed)}
            call_s = convolution_flops(side) / max(guess.values())
            left_s = deadline_s - time.perf_counter()
            # Called once, warmed up, timed; a large one is several times as fast as small ones.
            if (3 if rates else 1) * call_s > left_s:
                break
            measured_s = _call_s(make, timed=timed, budget_s=left_s, warmup_s=_NEXT_WARMUP_S)
        except REFUSALS:
            break
        if measured_s is not None:
            rates[shape] = convolution_flops(side) / measured_s
    return rates


def convolution_flops(side: int, *, channels: int = _CHANNELS, batch: int = 1) -> float:
    """FLOPs of a 3x3x3 convolution that keeps side and channels, by its formula."""
    return 2.0 * batch * side**3 * channels**2 * 3**3


def _trial_rate(timed: Timed) -> float:
    """FLOP/s of small convolutions, since a dtype without kernels of its own takes forever.

    Two at once, because torch runs a single small one by other kernels than a large one.
    """
    small = {"side": 8, "channels": 32, "batch": 2}
    call = _convolution(timed, **small)
    # The best, since other programs cost a call so short many times its own time.
    best_s = min(_timed_s(call, adapter=timed.adapter, num_calls=1) for _ in range(6))
    return convolution_flops(**small) / best_s


def _convolution(
    timed: Timed, *, side: int, channels: int = _CHANNELS, batch: int = 1
) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(side)
    values, weights = (
        torch.randn(shape, generator=generator)
        .to(timed.device.label, TORCH_DTYPES[timed.dtype])
        .contiguous(memory_format=torch.channels_last_3d)
        for shape in ((batch, channels, side, side, side), (channels, channels, 3, 3, 3))
    )
    return functools.partial(torch.conv3d, values, weights, padding=1)


def _first_rate(timed: Timed, *, side: int) -> float:
    """Rough FLOP/s, to know which sides fit in the budget; the first call is not counted."""
    call = _product(timed, shape=(side, "NN"))
    _timed_s(call, adapter=timed.adapter, num_calls=1)
    return 2.0 * side**3 / _timed_s(call, adapter=timed.adapter, num_calls=3)


def _free_bytes(device: Device) -> int | None:
    if device.type != "cpu":
        info = memory_info(device.type, device.index)
        if info is not None:
            return info[0]
    return device.memory_free_bytes or device.memory_bytes


def _product(timed: Timed, *, shape: Shape) -> Callable[[], object]:
    # A tile, repeated: 16384 squared random numbers would take the CPU longer than the products.
    side, layout = shape
    tile_side = min(side, 1024)
    generator = torch.Generator().manual_seed(side)
    left, right = (
        torch.randn(tile_side, tile_side, generator=generator)
        .to(timed.device.label, TORCH_DTYPES[timed.dtype])
        .repeat(side // tile_side, side // tile_side)
        for _ in range(2)
    )
    right = right.t() if layout == "NT" else right
    return functools.partial(torch.mm, left, right, out=torch.empty_like(left))


def sustained_rate(timed: Timed, *, shape: Shape) -> float:
    """FLOP/s over the second half of a run of `SUSTAINED_S`: what the power limit leaves."""
    call = _product(timed, shape=shape)
    begin_s = time.perf_counter()
    one_s = _timed_s(call, adapter=timed.adapter, num_calls=1)
    num_counted, counted_s = 0, 0.0
    while (elapsed_s := time.perf_counter() - begin_s) < SUSTAINED_S or not num_counted:
        num_calls = max(1, math.ceil(_BATCH_S[timed.kind] / one_s))
        one_s = _timed_s(call, adapter=timed.adapter, num_calls=num_calls)
        if elapsed_s >= SUSTAINED_S / 2:
            num_counted += num_calls
            counted_s += num_calls * one_s
    return 2.0 * shape[0] ** 3 * num_counted / counted_s


def copy_rate(timed: Timed, *, budget_s: float) -> float | None:
    """Bytes read plus written per second; None where the buffers do not fit."""
    device, kind = timed.device, timed.kind
    num_bytes = max(_COPY_BYTES[kind], _CACHE_MULTIPLE * largest_cache_bytes(device))
    free_bytes = _free_bytes(device)
    if free_bytes is not None:
        num_bytes = min(num_bytes, free_bytes // 8)
    num_tiles = max(1, num_bytes // 2**20)

    def make() -> Callable[[], object]:
        tile = torch.randn(2**18, generator=torch.Generator().manual_seed(0))
        # Both buffers are written first: reading pages never written costs nothing on Linux.
        source = tile.to(device.label).repeat(num_tiles)
        return functools.partial(source.clone().copy_, source)

    call_s = _call_s(make, timed=timed, budget_s=budget_s, warmup_s=_WARMUP_S[kind])
    return None if call_s is None else 2.0 * num_tiles * 2**20 / call_s


def largest_cache_bytes(device: Device, *, root: Path = _CPU_CACHES) -> int:
    """Bytes of the largest cache that the device states, or 0 where it states none."""
    if device.type == "cpu":
        return max((_size_bytes(path) for path in root.glob("index*/size")), default=0)
    properties = attempt(lambda: device_module(device.type).get_device_properties(device.index))
    return int(getattr(properties, "L2_cache_size", 0) or 0)


def _size_bytes(path: Path) -> int:
    """Linux writes `32768K` and means KiB."""
    try:
        return parse_bytes(path.read_text().strip() + "iB")
    except (OSError, UnicodeDecodeError, UsageError):
        return 0


def _call_s(
    make: Callable[[], Callable[[], object]], *, timed: Timed, budget_s: float, warmup_s: float
) -> float | None:
    """Median over repeats of the seconds per call; warmed up until the clocks have risen.

    None where memory does not suffice for the call or for what `make` allocates for it.
    """
    deadline_s, adapter = time.perf_counter() + budget_s, timed.adapter
    try:
        call = make()
        one_s = _timed_s(call, adapter=adapter, num_calls=1)
        begin_s = time.perf_counter()
        while time.perf_counter() - begin_s < min(warmup_s, budget_s / 4):
            one_s = _timed_s(call, adapter=adapter, num_calls=max(1, math.ceil(0.01 / one_s)))
        num_calls = max(1, math.ceil(_BATCH_S[timed.kind] / one_s))
        samples_s: list[float] = []
        while len(samples_s) < _NUM_REPEATS and (
            not samples_s or time.perf_counter() + num_calls * one_s <= deadline_s
        ):
            samples_s.append(_timed_s(call, adapter=adapter, num_calls=num_calls))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    return statistics.median(samples_s)


def _timed_s(call: Callable[[], object], *, adapter: Adapter, num_calls: int) -> float:
    adapter.synchronize()
    begin_s = time.perf_counter()
    for _ in range(num_calls):
        call()
    adapter.synchronize()
    return (time.perf_counter() - begin_s) / num_calls
