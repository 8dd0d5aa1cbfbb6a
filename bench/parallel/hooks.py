"""What DDP sends instead of gradients: torch's hooks for fp16, bf16 and PowerSGD.

No annotations are postponed here: DDP compares a hook's annotations with its own classes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from bench.parallel.mitigations import Mitigation

# DDP makes new buckets after the first step, and what PowerSGD keeps belongs to a bucket; this is
# the least that torch accepts.
FIRST_POWERSGD_STEP = 2

_Future = torch.futures.Future[torch.Tensor]
_Hook = Callable[[Any, GradBucket], _Future]


def register_hook(
    ddp: DistributedDataParallel, mitigation: Mitigation, *, group: dist.ProcessGroup
) -> None:
    """Make `ddp` send what the mitigation says; for none nothing is registered."""
    if mitigation.powersgd_rank is not None:
        state = PowerSGDState(
            process_group=group,
            matrix_approximation_rank=mitigation.powersgd_rank,
            start_powerSGD_iter=FIRST_POWERSGD_STEP,
        )
        wrap = {"fp16": default_hooks.fp16_compress_wrapper, "bf16": _bf16_wrapper}
        hook = wrap[mitigation.half](send_low_rank) if mitigation.half else send_low_rank
        ddp.register_comm_hook(state, hook)
    elif mitigation.half == "fp16":
        ddp.register_comm_hook(group, default_hooks.fp16_compress_hook)
    elif mitigation.half == "bf16":
        ddp.register_comm_hook(group, send_bf16)


def send_low_rank(state: PowerSGDState, bucket: GradBucket) -> _Future:
    """Run torch's PowerSGD hook; on a CPU bucket by bucket.

    Its second and third message are sent by what runs when the one before is complete. A device's
    stream keeps those in order; a CPU's threads do not, and then ranks add up different messages.
    """
    future: _Future = powerSGD_hook(state, bucket)
    if bucket.buffer().device.type == "cpu":
        future.wait()
    return future


def send_bf16(group: dist.ProcessGroup, bucket: GradBucket) -> _Future:
    """Run torch's bf16 hook; DDP refuses it by its name wherever there is no NCCL."""
    return default_hooks.bf16_compress_hook(group, bucket)


def _bf16_wrapper(hook: _Hook) -> _Hook:
    """Wrap as torch's bf16 wrapper does, under a name that DDP accepts without NCCL."""
    wrapped = default_hooks.bf16_compress_wrapper(hook)

    def send_as_bf16(state: Any, bucket: GradBucket) -> _Future:
        return wrapped(state, bucket)

    return send_as_bf16
