"""What of a step is the net's, what the optimizer's, and what has no formula."""

import ctypes
from typing import Any

import torch
from torch import nn

from bench.hardware.operators import MATRIX
from bench.measure.operator_count import OperatorCounter

FLOPS = 2 * 2 * 4 * 8 * 16
"""Of a forward pass and the gradients of the weights."""


def test_a_closure_is_the_nets_and_a_norm_of_gradients_has_no_products() -> None:
    net = nn.Linear(8, 16, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def closure() -> torch.Tensor:
        loss: torch.Tensor = net(torch.ones(4, 8)).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        return loss

    counter = OperatorCounter()
    with counter, counter.counting_optimizer():
        optimizer.step(closure)
    assert counter.uncounted == []
    found = {one.kind: one for one in counter.operators}
    assert sum(one.flops for kind, one in found.items() if kind in MATRIX) == FLOPS
    assert "optimizer" in found


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(values)
        ctypes.memmove(result.data_ptr(), values.data_ptr(), values.numel() * 4)
        return result

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def test_a_kernel_beside_torch_is_named_by_the_function_that_runs_it() -> None:
    counter = OperatorCounter()
    with counter:
        (Doubled.apply(torch.ones(4, requires_grad=True)) * 2).sum().backward()
    assert counter.uncounted == ["a kernel beside torch in Doubled.forward"]
