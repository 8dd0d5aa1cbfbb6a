"""Replicas that step alone and meet every H steps: post-local SGD and DiLoCo.

torch's own averager is not used: it waits for the device, and it replaces each weight by a slice
of one buffer, which undoes channels-last. Left out: the synchronous first phase of post-local SGD,
which lasts for a share of a whole training, and an outer step beside the next inner ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

OUTER_LEARNING_RATE = 0.7
OUTER_MOMENTUM = 0.9
# Both: https://arxiv.org/abs/2311.08105, section 3.1 (Nesterov was the best outer optimizer).


class WeightAveraging:
    """Every H steps the replicas' weights become their mean (https://arxiv.org/abs/1808.07217)."""

    def __init__(
        self, parameters: Sequence[torch.Tensor], *, period_steps: int, group: dist.ProcessGroup
    ) -> None:
        import torch.distributed as dist

        self._parameters = list(parameters)
        self._period_steps = period_steps
        self._group = group
        self._steps = 0
        # Every replica begins with the weights of the group's first.
        first = dist.get_global_rank(group, 0)
        for one in self._parameters:
            dist.broadcast(one.detach(), src=first, group=group)

    def after_step(self) -> None:
        """Count one optimizer step, and average when the period is over."""
        import torch

        self._steps += 1
        if self._steps % self._period_steps == 0:
            with torch.no_grad():
                self._meet()

    def _meet(self) -> None:
        means = mean_over_ranks(self._parameters, group=self._group, dtype=None)
        for parameter, mean in zip(self._parameters, means, strict=True):
            parameter.copy_(mean)


class OuterStep(WeightAveraging):
    """DiLoCo: every H steps the mean change of the replicas is one Nesterov step of all."""

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        *,
        period_steps: int,
        group: dist.ProcessGroup,
        dtype: torch.dtype | None = None,
    ) -> None:
        import torch

        super().__init__(parameters, period_steps=period_steps, group=group)
        self._dtype = dtype
        self._common = [one.detach().clone() for one in self._parameters]
        self._outer = torch.optim.SGD(
            self._common, lr=OUTER_LEARNING_RATE, momentum=OUTER_MOMENTUM, nesterov=True
        )

    def _meet(self) -> None:
        changes = [
            common - parameter.detach()
            for common, parameter in zip(self._common, self._parameters, strict=True)
        ]
        means = mean_over_ranks(changes, group=self._group, dtype=self._dtype)
        for common, mean in zip(self._common, means, strict=True):
            common.grad = mean
        self._outer.step()
        self._outer.zero_grad(set_to_none=True)
        for common, parameter in zip(self._common, self._parameters, strict=True):
            parameter.copy_(common)


def mean_over_ranks(
    tensors: Sequence[torch.Tensor], *, group: dist.ProcessGroup, dtype: torch.dtype | None
) -> list[torch.Tensor]:
    """Return each tensor's mean over the ranks, sent as one message, in `dtype` unless None."""
    import torch
    import torch.distributed as dist

    flat = torch.cat([one.reshape(-1) for one in tensors])
    # Divided first: a sum over ranks may not fit in fp16.
    sent = (flat / group.size()).to(dtype or flat.dtype)
    dist.all_reduce(sent, group=group)
    parts = torch.split(sent.to(flat.dtype), [one.numel() for one in tensors])
    return [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]
