"""Copies of a net, each on one device or cut over a few: what they exchange, and when.

The gradients of copies are averaged by DDP, in buckets that overlap with the backward pass; torch's
hooks send them in fp16, bf16 or as PowerSGD's factors. Or the copies step alone and meet every H
steps: post-local SGD and DiLoCo. torch's own averager is not used: it waits for the device, and it
replaces each weight by a slice of one buffer, which undoes channels-last. Left out: the synchronous
first phase of post-local SGD, which lasts for a share of a whole training, and an outer step beside
the next inner ones. What a copy's devices share among them is in `tensor.py`.

No annotations are postponed here: DDP compares a hook's annotations with its own classes.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from bench.core.nouns import Layout
from bench.parallel.laid_out import AT_ONCE, DDP_OVERLAP, HALF_TYPES, LaidOut
from bench.parallel.support import Mitigation, parse_mitigation
from bench.workload import Phase, Workload

# DDP makes new buckets after the first step, and what PowerSGD keeps belongs to a bucket; this is
# the least that torch accepts.
FIRST_POWERSGD_STEP = 2
OUTER_LEARNING_RATE = 0.7
OUTER_MOMENTUM = 0.9
# Both: https://arxiv.org/abs/2311.08105, section 3.1 (Nesterov was the best outer optimizer).

_Future = torch.futures.Future[torch.Tensor]
_Hook = Callable[[Any, GradBucket], _Future]


def replicate(
    net: nn.Module,
    *,
    workload: Workload,
    phase: Phase,
    layout: Layout,
    device: torch.device,
    is_compiled: bool,
) -> LaidOut:
    """Cut the net as the workload plans, if it shall be, and make copies of it."""
    group = dist.group.WORLD
    assert group is not None
    laid_out = LaidOut(net)
    if layout.strategy == "tp":
        from bench.parallel.tensor import cut

        laid_out, group = cut(net, workload=workload, phase=phase, layout=layout, device=device)
    if phase.is_training and (layout.data > 1 or layout.strategy == "ddp"):
        mitigation = parse_mitigation(layout.mitigate)
        if mitigation.averaging is None:
            laid_out.ddp = _ddp(net, layout=layout, mitigation=mitigation, group=group)
            laid_out.net = laid_out.ddp
            is_cut = laid_out.overlap != ""
            laid_out.overlap = f"data-parallel part only: {AT_ONCE}" if is_cut else DDP_OVERLAP
            if mitigation.powersgd_rank is not None and device.type == "cpu":
                laid_out.overlap = "none: on a CPU PowerSGD goes bucket by bucket"
        else:
            kind = WeightAveraging if mitigation.averaging == "postlocalsgd" else OuterStep
            laid_out.averaging = kind(
                [one for one in net.parameters() if one.requires_grad],
                period_steps=mitigation.period_steps,
                group=group,
                dtype=None if mitigation.half is None else HALF_TYPES[mitigation.half],
            )
            laid_out.overlap = "none: replicas average after the optimizer step"
            laid_out.period_steps = mitigation.period_steps
    if is_compiled:
        laid_out.net = torch.compile(laid_out.net)  # type: ignore[assignment]
    return laid_out


def _ddp(
    net: nn.Module, *, layout: Layout, mitigation: Mitigation, group: dist.ProcessGroup
) -> DistributedDataParallel:
    # Buffers here are constants or statistics of the copy; sending them in every step is no part
    # of data parallelism. The flag has another name from torch 2.13 on.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    flag = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    quiet: dict[str, Any] = {flag: False}
    # Without a size torch makes the first bucket small, to begin early; with its default it
    # does not.
    is_default = layout.bucket_bytes == Layout().bucket_bytes
    ddp = DistributedDataParallel(
        net,
        process_group=group,
        bucket_cap_mb=None if is_default else layout.bucket_bytes / 2**20,
        gradient_as_bucket_view=True,
        **quiet,
    )
    _register_hook(ddp, mitigation, group=group)
    return ddp


def _register_hook(
    ddp: DistributedDataParallel, mitigation: Mitigation, *, group: dist.ProcessGroup
) -> None:
    """Make `ddp` send what the mitigation says; for none nothing is registered."""
    half = mitigation.half
    state: Any = group
    if mitigation.powersgd_rank is not None:
        state = PowerSGDState(
            process_group=group,
            matrix_approximation_rank=mitigation.powersgd_rank,
            start_powerSGD_iter=FIRST_POWERSGD_STEP,
        )
        hook: _Hook = _send_low_rank
        if half is not None:
            hook = getattr(default_hooks, f"{half}_compress_wrapper")(hook)
    elif half is not None:
        hook = getattr(default_hooks, f"{half}_compress_hook")
    else:
        return

    def send(state: Any, bucket: GradBucket) -> _Future:
        # Without NCCL, DDP refuses torch's bf16 hooks, by their names.
        return hook(state, bucket)

    ddp.register_comm_hook(state, send)


def _send_low_rank(state: PowerSGDState, bucket: GradBucket) -> _Future:
    """Run torch's PowerSGD hook; on a CPU bucket by bucket.

    Its second and third message are sent by what runs when the one before is complete. A device's
    stream keeps those in order; a CPU's threads do not, and then ranks add up different messages.
    """
    future: _Future = powerSGD_hook(state, bucket)
    if bucket.buffer().device.type == "cpu":
        future.wait()
    return future


class WeightAveraging:
    """Every H steps the replicas' weights become their mean (https://arxiv.org/abs/1808.07217).

    What is sent is in `dtype`, or as it is.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        *,
        period_steps: int,
        group: dist.ProcessGroup,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._parameters = list(parameters)
        self._period_steps = period_steps
        self._group = group
        self._dtype = dtype
        self._steps = 0
        # Every replica begins with the weights of the group's first.
        first = dist.get_global_rank(group, 0)
        for one in self._parameters:
            dist.broadcast(one.detach(), src=first, group=group)

    def after_step(self) -> None:
        """Count one optimizer step, and average when the period is over."""
        self._steps += 1
        if self._steps % self._period_steps == 0:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, self._meet())

    def _meet(self) -> list[torch.Tensor]:
        """Return the weights that all replicas go on with."""
        return self._means(self._parameters)

    def _means(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return each tensor's mean over the ranks, sent as one message."""
        flat = torch.cat([one.reshape(-1) for one in tensors])
        # Divided first: a sum over ranks may not fit in fp16.
        sent = (flat / self._group.size()).to(self._dtype or flat.dtype)
        dist.all_reduce(sent, group=self._group)
        parts = torch.split(sent.to(flat.dtype), [one.numel() for one in tensors])
        return [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]


class OuterStep(WeightAveraging):
    """DiLoCo: every H steps the mean change of the replicas is one Nesterov step of all."""

    def __init__(self, parameters: Sequence[torch.Tensor], **given: Any) -> None:
        super().__init__(parameters, **given)
        self._common = [one.detach().clone() for one in self._parameters]
        self._outer = torch.optim.SGD(
            self._common, lr=OUTER_LEARNING_RATE, momentum=OUTER_MOMENTUM, nesterov=True
        )

    def _meet(self) -> list[torch.Tensor]:
        changes = torch._foreach_sub(self._common, self._parameters)
        for common, mean in zip(self._common, self._means(changes), strict=True):
            common.grad = mean
        self._outer.step()
        self._outer.zero_grad(set_to_none=True)
        return self._common
