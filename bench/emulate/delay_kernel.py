"""CUDA kernels that hold a stream until a modelled link is through, on the device's own clock.

`%globaltimer` counts nanoseconds at a constant rate on every multiprocessor; `clock64` follows
the boost clock. The link's clock lives on the device too, so that transfers of all streams
queue on it and no thread of the host is needed. Holding with `units` blocks of 512 threads and with
memory traffic imitates a library that communicates with the compute units; one thread is an adapter
that takes none. Launching takes some microseconds of the host, as launching anything does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

THREADS = 512
"""Of each block that holds; NCCL uses 512 to 640 (https://github.com/NVIDIA/nccl, common.h)."""
TRAFFIC_BYTES = 2**28
"""Memory that the traffic goes through: more than any second-level cache."""

SOURCE = r"""
__device__ unsigned long long now_ns() {
  unsigned long long ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
  return ns;
}

extern "C" __global__ void stamp(unsigned long long* stamps, int slot) {
  stamps[slot] = now_ns();
}

// Takes the link as soon as it is free. Leaves when this was asked, the begin and the end.
extern "C" __global__ void reserve(unsigned long long* free_ns, unsigned long long* stamps,
                                   int slot, int seconds, int nanoseconds) {
  const unsigned long long duration = 1000000000ULL * seconds + nanoseconds;
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

// Returns at the end that `reserve` left; meanwhile moves kib * 1024 bytes at a steady rate.
extern "C" __global__ void hold(const unsigned long long* stamps, int slot, float4* traffic,
                                int num_vectors, int kib) {
  const unsigned long long start = stamps[slot + 1], end = stamps[slot + 2];
  const double share = 1024.0 * kib / gridDim.x, duration = (double)(end - start);
  const double bytes = 2.0 * blockDim.x * sizeof(float4);
  double moved = 0;
  unsigned int index = blockIdx.x * blockDim.x + threadIdx.x;
  for (unsigned long long now = now_ns(); now < end; now = now_ns()) {
    if (kib && now > start && moved * duration < share * (double)(now - start)) {
      float4 value = traffic[index % num_vectors];
      value.x += 1.0f;
      traffic[index % num_vectors] = value;
      index += gridDim.x * blockDim.x;
      moved += bytes;
    }
  }
}
"""


class DelayKernels:
    """The compiled kernels; a slot is an index into `stamps`, of which `reserve` writes three."""

    def __init__(self, device: torch.device) -> None:
        compile_kernel: Any = torch.cuda._compile_kernel
        self._stamp = compile_kernel(SOURCE, "stamp")
        self._reserve = compile_kernel(SOURCE, "reserve")
        self._hold = compile_kernel(SOURCE, "hold")
        self._device = device
        self._traffic = torch.zeros(4, device=device)

    def stamp(self, stamps: Tensor, slot: int, *, stream: torch.cuda.Stream) -> None:
        """Write the time at which `stream` gets here."""
        self._stamp(grid=(1, 1, 1), block=(1, 1, 1), args=[stamps, slot], stream=stream)

    def reserve(
        self,
        free: Tensor,
        stamps: Tensor,
        slot: int,
        *,
        duration_s: float,
        stream: torch.cuda.Stream,
    ) -> None:
        """Take the link whose clock is `free`; writes when asked, begin and end."""
        # An int is passed as 32 bits, and a float as what the version of torch thinks.
        seconds, nanoseconds = divmod(round(duration_s * 1e9), 10**9)
        self._reserve(
            grid=(1, 1, 1),
            block=(1, 1, 1),
            args=[free, stamps, slot, seconds, nanoseconds],
            stream=stream,
        )

    def hold(
        self,
        stamps: Tensor,
        slot: int,
        *,
        units: int,
        traffic_bytes: float,
        stream: torch.cuda.Stream,
    ) -> None:
        """Hold `stream` until the end that `reserve` wrote, on `units` compute units."""
        kib = 0
        if units and traffic_bytes:
            if self._traffic.numel() * 4 < TRAFFIC_BYTES:
                self._traffic = torch.zeros(TRAFFIC_BYTES // 4, device=self._device)
                torch.cuda.synchronize(self._device)  # zeroed on another stream
            kib = min(max(1, round(traffic_bytes / 1024)), 2**31 - 1)
        self._hold(
            grid=(max(1, units), 1, 1),
            block=(THREADS if units else 1, 1, 1),
            args=[stamps, slot, self._traffic, self._traffic.numel() // 4, kib],
            stream=stream,
        )
