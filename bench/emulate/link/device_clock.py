"""The clocks of a link on an accelerator: CUDA kernels that hold streams, or events that record.

Kernels hold a stream until the modelled link is through, on the device's own clock: `%globaltimer`
counts nanoseconds at a constant rate on every multiprocessor, while `clock64` follows the boost
clock. The link's clock lives on the device too, so that transfers of all streams queue on it and no
thread of the host is needed. Holding with `units` blocks of 512 threads and with memory traffic
imitates a library that communicates with the compute units; one thread is an adapter that takes
none. Launching takes some microseconds of the host, as launching anything does.

A link that is only recorded takes no time, so nothing has to be held and torch's events serve, on
any accelerator. Where events keep no time (MPS) each moment waits for the device: its step has then
no overlap left to record.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any

import torch

from bench.devices.torch.adapter import Adapter
from bench.emulate.link.gpu_kernel import GpuKernels
from bench.emulate.link.serial_link import NUM_LINKS
from bench.emulate.replay import Resolve

THREADS = 512
"""Of each block that holds; NCCL uses 512 to 640 (https://github.com/NVIDIA/nccl, common.h)."""
TRAFFIC_BYTES = 2**28
"""Memory that the traffic goes through: more than any second-level cache."""

_IN_FLIGHT = 8
"""Loads of a thread under way at once: 64 KiB of a block, so that 16 blocks reach over 1 TB/s."""
SOURCE = (
    f"""
#define IN_FLIGHT {_IN_FLIGHT}
#define VECTORS {TRAFFIC_BYTES // 16}u
"""
    r"""
__device__ unsigned long long now_ns() {
  unsigned long long ns;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
  return ns;
}

extern "C" __global__ void stamp(unsigned long long* stamps, long long slot) {
  stamps[slot] = now_ns();
}

// Takes the link as soon as it is free. Leaves when this was asked, the begin and the end.
extern "C" __global__ void reserve(unsigned long long* free_ns, unsigned long long* stamps,
                                   long long slot, unsigned long long duration) {
  const unsigned long long now = now_ns();
  unsigned long long seen = *(volatile unsigned long long*)free_ns;
  unsigned long long start;
  while (true) {
    start = now > seen ? now : seen;
    const unsigned long long found = atomicCAS(free_ns, seen, start + duration);
    if (found == seen) break;
    seen = found;
  }
  stamps[slot] = now;
  stamps[slot + 1] = start;
  stamps[slot + 2] = start + duration;
}

// Returns at the end that `reserve` left. Meanwhile moves num_bytes at a steady rate, and adds what
// it has moved to `moved`. A warp decides as one, and moves a batch when half of it is due. Each
// thread has several loads under way: one at a time would move a fraction of what a link carries.
extern "C" __global__ void hold(const unsigned long long* stamps, long long slot, float4* traffic,
                                long long num_bytes, unsigned long long* moved) {
  const unsigned long long start = stamps[slot + 1], end = stamps[slot + 2];
  if (num_bytes == 0) {
    while (now_ns() < end) { }
    return;
  }
  const unsigned int step = gridDim.x * blockDim.x;
  unsigned int index = blockIdx.x * blockDim.x + threadIdx.x;
  const double batch = 2.0 * 32 * IN_FLIGHT * sizeof(float4), due = num_bytes / batch;
  const double warps = due < step / 32 ? (due < 1 ? 1 : floor(due)) : step / 32;
  const double rate = (index / 32 < warps ? num_bytes / warps : 0) / (double)(end - start);
  double mine = 0;
  while (true) {
    const unsigned long long now = __shfl_sync(0xffffffff, now_ns(), 0);
    if (now >= end) break;
    if (now <= start || mine + batch / 2 > rate * (double)(now - start)) continue;
    float4 values[IN_FLIGHT];
    #pragma unroll
    for (int i = 0; i < IN_FLIGHT; i++) values[i] = traffic[(index + i * step) % VECTORS];
    #pragma unroll
    for (int i = 0; i < IN_FLIGHT; i++) {
      values[i].x += 1.0f;
      traffic[(index + i * step) % VECTORS] = values[i];
    }
    index += IN_FLIGHT * step;
    mine += batch;
  }
  if (threadIdx.x % 32 == 0) atomicAdd(moved, (unsigned long long)mine);
}
"""
)


class DelayKernels:
    """The compiled kernels and the stamps of a step; `reserve` writes three from its slot on."""

    def __init__(self, device: torch.device, *, capacity: int) -> None:
        self._kernels = GpuKernels(SOURCE, device=device)
        self._device = device
        self._stamps = torch.zeros(capacity, dtype=torch.int64, device=device)
        free = torch.zeros(NUM_LINKS, dtype=torch.int64, device=device)
        self._free = [free[index : index + 1] for index in range(NUM_LINKS)]
        self._traffic = torch.zeros(0, device=device)
        self._moved = torch.zeros(1, dtype=torch.int64, device=device)
        self._asked_bytes = 0

    def stamp(self, slot: int, *, stream: torch.cuda.Stream) -> None:
        """Write the time at which `stream` gets here."""
        self._kernels.launch("stamp", self._stamps, slot, stream=stream)

    def reserve(
        self, slot: int, *, level: int, duration_s: float, stream: torch.cuda.Stream
    ) -> None:
        """Take the link of this level; writes when asked, begin and end."""
        duration_ns = round(duration_s * 1e9)
        free = self._free[level]
        self._kernels.launch("reserve", free, self._stamps, slot, duration_ns, stream=stream)

    def hold(
        self, slot: int, *, units: int, traffic_bytes: float, stream: torch.cuda.Stream
    ) -> None:
        """Hold `stream` until the end that `reserve` wrote, on `units` compute units."""
        num_bytes = round(traffic_bytes) if units else 0
        self._asked_bytes += num_bytes
        if num_bytes and not self._traffic.numel():
            self._traffic = torch.zeros(TRAFFIC_BYTES // 4, device=self._device)
            torch.cuda.synchronize(self._device)  # zeroed on another stream
        self._kernels.launch(
            "hold",
            self._stamps,
            slot,
            self._traffic,
            num_bytes,
            self._moved,
            grid=max(1, units),
            block=THREADS if units else 1,
            stream=stream,
        )

    def seconds(self, num_slots: int) -> Resolve:
        """Return what resolves the moments of the step that has ended; the device is through."""
        stamps_ns: list[int] = self._stamps[:num_slots].tolist()
        # Integers first: nanoseconds since 1970 are more than a float knows apart.
        return lambda moment: (stamps_ns[int(moment)] - stamps_ns[0]) * 1e-9

    def take_traffic(self) -> tuple[int, int]:
        """Return bytes asked for and bytes moved since the last call; waits for the device."""
        torch.cuda.synchronize(self._device)
        asked_bytes, moved_bytes = self._asked_bytes, int(self._moved.item())
        self._asked_bytes = 0
        self._moved.zero_()
        torch.cuda.synchronize(self._device)  # other streams add to it
        return asked_bytes, moved_bytes


class EventClock:
    """Keeps an event, or a time of the host, for each slot of a step."""

    def __init__(
        self, adapter: Adapter, *, inside: Callable[[Any], AbstractContextManager[Any]]
    ) -> None:
        self._adapter = adapter
        self._inside = inside
        self._marks: dict[int, Any] = {}

    def stamp(self, slot: int, *, stream: Any) -> None:
        """Note the time at which `stream` gets here."""
        event = self._adapter.make_event()
        if event is None:
            self._adapter.synchronize()
            self._marks[slot] = perf_counter()
            return
        with self._inside(stream):
            event.record()
        self._marks[slot] = event

    def reserve(self, slot: int, *, level: int, duration_s: float, stream: Any) -> None:
        """Note one time as asked, begin and end."""
        assert duration_s == 0, "a recorded link takes no time"
        self.stamp(slot, stream=stream)
        self._marks[slot + 1] = self._marks[slot + 2] = self._marks[slot]

    def seconds(self, num_slots: int) -> Resolve:
        """Return what resolves the moments of the step that has ended; the device is through."""
        marks, self._marks = self._marks, {}
        first = marks[0]
        times_s = {
            slot: mark - first if isinstance(mark, float) else first.elapsed_ms(mark) * 1e-3
            for slot, mark in marks.items()
        }
        return lambda moment: times_s[int(moment)]
