"""What carrying data costs the processor: sockets and copies, which a modelled link leaves out.

A real CPU group moves every byte through the kernel several times and adds on the way, on cores
that compute wants too; without that an emulated step looks up to a quarter too fast. A thread
copies `copies` times the bytes of each collective, spread over the time of its transfer. How many
copies a byte costs is fitted on one point and tested on others by `tests/netns`.
"""

import queue
import threading
import time
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 2**22
"""Larger than a core's cache, so that copies go through memory as a socket's do."""
_SLICES = 16
"""Pauses within one transfer; between them the core is free, as between packets."""


class CpuTax:
    """Takes processor time beside each transfer; nothing at 0 copies."""

    def __init__(self) -> None:
        self.copies = 0.0
        self._jobs: queue.SimpleQueue[tuple[float, float, float, threading.Event] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def charge(self, num_bytes: int, *, start_s: float, end_s: float) -> threading.Event | None:
        """Copy beside the transfer from start to end; the event is set when that is through."""
        if not self.copies or not num_bytes:
            return None
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="cpu-tax", daemon=True)
            self._thread.start()
        paid = threading.Event()
        self._jobs.put((num_bytes * self.copies, start_s, end_s, paid))
        return paid

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _serve(self) -> None:
        source, target = np.zeros(_BLOCK_BYTES, np.uint8), np.zeros(_BLOCK_BYTES, np.uint8)
        while (job := self._jobs.get()) is not None:
            num_bytes, start_s, end_s, paid = job
            for index in range(_SLICES):
                begin_s = start_s + (end_s - start_s) * index / _SLICES
                time.sleep(max(0.0, begin_s - perf_counter()))
                _copy(round(num_bytes / _SLICES), source=source, target=target)
            paid.set()


def _copy(num_bytes: int, *, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    # numpy lets other threads have the interpreter while it copies, and uses one core.
    while num_bytes > 0:
        size = min(num_bytes, _BLOCK_BYTES)
        np.copyto(target[:size], source[:size])
        num_bytes -= size
