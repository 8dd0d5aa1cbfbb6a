"""CUDA kernels that hold a stream until a modelled link is through, on the device's own clock.

`%globaltimer` counts nanoseconds at a constant rate on every multiprocessor; `clock64` follows
the boost clock. The link's clock lives on the device too, so that transfers of all streams
queue on it and no thread of the host is needed. Holding with `units` blocks of 512 threads and with
memory traffic imitates a library that communicates with the compute units; one thread is an adapter
that takes none. Launching takes some microseconds of the host, as launching anything does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.emulate.gpu_kernel import GpuKernels

THREADS = 512
"""Of each block that holds; NCCL uses 512 to 640 (https://github.com/NVIDIA/nccl, common.h)."""
TRAFFIC_BYTES = 2**28
"""Memory that the traffic goes through: more than any second-level cache."""

SOURCE = r"""
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

// Returns at the end that `reserve` left; meanwhile moves num_bytes at a steady rate.
extern "C" __global__ void hold(const unsigned long long* stamps, long long slot,
                                float4* traffic, long long num_vectors, long long num_bytes) {
  const unsigned long long start = stamps[slot + 1], end = stamps[slot + 2];
  const double share = (double)num_bytes / gridDim.x, duration = (double)(end - start);
  const double bytes = 2.0 * blockDim.x * sizeof(float4);
  double moved = 0;
  unsigned long long index = blockIdx.x * blockDim.x + threadIdx.x;
  for (unsigned long long now = now_ns(); now < end; now = now_ns()) {
    if (num_bytes && now > start && moved * duration < share * (double)(now - start)) {
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
        self._kernels = GpuKernels(SOURCE, device=device)
        self._device = device
        self._traffic = torch.zeros(4, device=device)

    def stamp(self, stamps: Tensor, slot: int, *, stream: torch.cuda.Stream) -> None:
        """Write the time at which `stream` gets here."""
        self._kernels.launch("stamp", stamps, slot, stream=stream)

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
        duration_ns = round(duration_s * 1e9)
        self._kernels.launch("reserve", free, stamps, slot, duration_ns, stream=stream)

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
        num_bytes = round(traffic_bytes) if units else 0
        if num_bytes and self._traffic.numel() * 4 < TRAFFIC_BYTES:
            self._traffic = torch.zeros(TRAFFIC_BYTES // 4, device=self._device)
            torch.cuda.synchronize(self._device)  # zeroed on another stream
        self._kernels.launch(
            "hold",
            stamps,
            slot,
            self._traffic,
            self._traffic.numel() // 4,
            num_bytes,
            grid=max(1, units),
            block=THREADS if units else 1,
            stream=stream,
        )
