"""One optimizer step: micro-batches, clipping, losses."""

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from bench.measure.engine import steps
from bench.measure.engine.steps import TrainStep


class Linear:
    """A line; every gradient can be worked out by hand."""

    max_grad_norm: ClassVar[float | None] = None

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), lr=0.5)

    def schedule(self, optimizer: torch.optim.Optimizer) -> None:
        return None

    def loss(self, net: Any, batch: torch.Tensor) -> torch.Tensor:
        # A quarter: fp16 holds no gradient of 1 after scaling by its 65,536.
        return net(batch).float().mean() / 4


class Clipped(Linear):
    max_grad_norm = 0.1


def net_with(weight: float) -> nn.Linear:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, weight)
    return net


def step_of(workload: Any, net: nn.Module, *, dtype: Any = "fp32") -> TrainStep:
    return TrainStep(workload, net, device_type="cpu", dtype=dtype)


def test_micro_batches_average_their_gradients_and_losses() -> None:
    net = net_with(2.0)
    step = step_of(Linear(), net)
    step(torch.tensor([[1.0]]), torch.tensor([[5.0]]))
    # d loss / d weight is 1/4 and 5/4, so 3/4 on average; the weight goes from 2 to 2 - .5 * 3/4.
    assert net.weight.item() == pytest.approx(1.625)
    assert step.last_loss is not None
    assert step.last_loss.item() == pytest.approx((0.5 + 2.5) / 2)


def test_gradients_do_not_carry_over_to_the_next_step() -> None:
    net = net_with(0.0)
    step = step_of(Linear(), net)
    for _ in range(2):
        step(torch.tensor([[1.0]]))
    assert net.weight.item() == pytest.approx(-0.25)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_the_average_gradient_is_clipped_not_each(dtype: str) -> None:
    net = net_with(0.0)
    # .4 and -.35: their mean, .025, is below the norm that is allowed, though neither is.
    step_of(Clipped(), net, dtype=dtype)(torch.tensor([[1.6]]), torch.tensor([[-1.4]]))
    assert net.weight.item() == pytest.approx(-0.0125, abs=1e-4)
    net = net_with(0.0)
    step_of(Clipped(), net, dtype=dtype)(torch.tensor([[1.6]]))
    assert net.weight.item() == pytest.approx(-0.05, abs=1e-4)


def test_the_first_loss_is_kept() -> None:
    step = step_of(Linear(), net_with(1.0))
    step(torch.tensor([[1.0]]))
    step(torch.tensor([[1.0]]))
    assert (step.first_loss, step.last_loss) == (torch.tensor(0.25), torch.tensor(0.21875))


class Lacking(torch.optim.AdamW):
    """As on a backend that claims the fused kernel and raises when it is called."""

    def step(self, *_: Any) -> None:  # type: ignore[override]
        raise NotImplementedError("_fused_adamw_")


def parameters_on(device: str) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, device=device)) for _ in range(2)]


def test_adamw_is_fused_on_an_accelerator_and_keeps_what_its_author_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The meta device stands for an accelerator that has the kernel.
    monkeypatch.setattr(steps, "_has_fused", lambda kind, device: True)
    first, second = parameters_on("meta")
    groups = [{"params": [first], "weight_decay": 0.1}, {"params": [second], "lr": 0.5}]
    made = torch.optim.AdamW(groups, lr=0.25, betas=(0.8, 0.9))
    monkeypatch.setattr(
        torch.utils._foreach_utils, "_get_fused_kernels_supported_devices", lambda: ["meta"]
    )
    found = steps.fused(made)
    assert steps.label_of(found) == "AdamW-fused"
    assert [(g["lr"], g["weight_decay"], g["betas"]) for g in found.param_groups] == [
        (0.25, 0.1, (0.8, 0.9)),
        (0.5, 0.01, (0.8, 0.9)),
    ]
    for other in (
        torch.optim.AdamW(parameters_on("cpu")),
        torch.optim.AdamW(parameters_on("meta"), foreach=True),
        torch.optim.SGD(parameters_on("meta")),
    ):
        assert steps.fused(other) is other
        assert steps.label_of(other) == type(other).__name__
    monkeypatch.setattr(steps, "_has_fused", lambda kind, device: False)
    assert steps.fused(made) is made


def test_a_backend_that_only_claims_the_fused_kernel_is_found_out() -> None:
    assert steps._has_fused(torch.optim.AdamW, torch.device("cpu"))
    assert not steps._has_fused(Lacking, torch.device("cpu"))
