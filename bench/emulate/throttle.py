"""Real ranks held back: each collective runs for real, and completes no earlier than modelled.

Its numerics are those of real training, so this is the mode for losses and for compression. It can
only slow down: a link that is faster than what is really there stays as slow as that is, and the
trace then shows collectives longer than modelled. Ranks do not agree on when a collective begins;
each holds back from when it issued it, and the real one waits for the last.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from bench.emulate.emulation import Emulation
from bench.emulate.group import THROTTLED, start_group
from bench.emulate.simulate import Prices


class Throttle(Emulation):
    """A modelled link in front of the real one."""

    def make_real(self, options: Any) -> dist.ProcessGroup:
        """Make the group that torch would have made: gloo, and NCCL on CUDA."""
        rank, size = options.group_rank, options.group_size
        real = dist.ProcessGroup(options.store, rank, size)
        kinds = dist.ProcessGroup.BackendType
        gloo = dist.ProcessGroupGloo(
            PrefixStore("cpu/", options.store), rank, size, timeout=options.timeout
        )
        real._register_backend(torch.device("cpu"), kinds.GLOO, gloo)
        real._set_default_backend(kinds.GLOO)
        if self.device.type == "cuda":
            settings = dist.ProcessGroupNCCL.Options()
            settings._timeout = options.timeout
            nccl = dist.ProcessGroupNCCL(PrefixStore("cuda/", options.store), rank, size, settings)
            real._register_backend(torch.device("cuda"), kinds.NCCL, nccl)
            real._set_default_backend(kinds.NCCL)
        return real


def start_throttle(
    *, model: Prices, device: torch.device, store: Store, rank: int, num_ranks: int
) -> Throttle:
    """Make torch's default group of real ranks that share `store`; it ends with `close`.

    Raises UsageError where a link cannot be emulated on `device`.
    """
    throttle = Throttle(num_ranks=num_ranks, model=model, device=device)
    start_group(throttle, THROTTLED, store=store, rank=rank)
    return throttle
