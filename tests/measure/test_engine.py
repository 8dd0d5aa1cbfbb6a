"""A net built on its device and compiled for its shapes, one optimizer step, what a dtype means."""

import warnings
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from bench.measure.engine import steps
from bench.measure.engine.precision import set_matmul_precision
from bench.measure.engine.steps import TrainStep
from bench.measure.engine.torch_engine import TorchEngine
from tests.measure.trial_requests import request_of


def engine_for(*, prompt_tokens: int, compile_mode: str | None = None) -> TorchEngine:
    overrides = {"prompt_tokens": prompt_tokens, "batch": 3, "layers": 1}
    return TorchEngine(
        request_of("llm-prefill", overrides=overrides, compile=True, compile_mode=compile_mode)
    )


def test_the_check_at_tiny_leaves_the_measured_shapes_static(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_dynamic: list[int] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        shapes = [item.shape if isinstance(item, torch.Tensor) else (item,) for item in inputs]
        num_dynamic.append(sum(isinstance(one, torch.SymInt) for shape in shapes for one in shape))
        return graph.forward

    compile_net = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, **_: compile_net(net, backend=backend))
    torch.compiler.reset()
    engine = engine_for(prompt_tokens=24)
    engine.build()
    num_checked = len(num_dynamic)
    engine.step()
    assert len(num_dynamic) > num_checked > 0
    assert set(num_dynamic) == {0}


def test_a_net_is_built_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for(prompt_tokens=8)
    built = engine.workload.build_net
    assert {p.device.type for p in engine._build_net().parameters()} == {"cpu"}
    engine.device = torch.device("meta")  # stands for an accelerator
    assert {p.device.type for p in engine._build_net().parameters()} == {"meta"}

    def build_where_random_numbers_are(_: Any = None) -> Any:
        torch.rand(3)
        if torch.get_default_device().type == "meta":
            raise NotImplementedError("aten::normal_")
        return built()

    monkeypatch.setattr(type(engine.workload), "build_net", build_where_random_numbers_are)
    nets = []
    for build in (engine._build_net, build_where_random_numbers_are):
        torch.manual_seed(0)
        nets.append(build())
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
def test_graphs_are_told_of_each_step_and_missing_ones_are_noticed(
    mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    begun: list[int] = []
    monkeypatch.setattr(torch, "compile", lambda net, *, mode: [net, asked.append(mode)][0])
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    engine = engine_for(prompt_tokens=8, compile_mode=mode)
    engine.build()
    for _ in range(2):
        engine.step()
    assert asked == [mode, mode], "the check at tiny and the net that is measured"
    assert len(begun) == (0 if mode is None else 2)
    assert engine.lacks_graphs() is (mode is not None), "a CPU has none"


class Linear:
    """A line; every gradient can be worked out by hand."""

    max_grad_norm: ClassVar[float | None] = None
    schedule = staticmethod(lambda optimizer: None)

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), lr=0.5)

    def loss(self, net: Any, batch: torch.Tensor) -> torch.Tensor:
        # A quarter: fp16 holds no gradient of 1 after scaling by its 65,536.
        return net(batch).float().mean() / 4


class Clipped(Linear):
    max_grad_norm = 0.1


def stepped(
    workload: Any, *batches: tuple[float, ...], weight: float = 0.0, dtype: Any = "fp32"
) -> tuple[float, TrainStep]:
    """Take a step on each tuple of micro-batches; return the weight they lead to."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, weight)
    step = TrainStep(workload, net, device_type="cpu", dtype=dtype)
    for micro_batches in batches:
        step(*(torch.tensor([[value]]) for value in micro_batches))
    return net.weight.item(), step


def test_micro_batches_average_their_gradients_and_losses() -> None:
    weight, step = stepped(Linear(), (1.0, 5.0), weight=2.0)
    # d loss / d weight is 1/4 and 5/4, so 3/4 on average; the weight goes from 2 to 2 - .5 * 3/4.
    assert (weight, float(step.last_loss or 0)) == pytest.approx((1.625, (0.5 + 2.5) / 2))
    # A CUDA graph writes the next loss where this one was.
    _, step = stepped(Linear(), (1.0,), weight=1.0)
    assert step.first_loss == step.last_loss and step.first_loss is not step.last_loss
    weight, step = stepped(Linear(), (1.0,), (1.0,), weight=1.0)
    assert weight == pytest.approx(0.75), "gradients do not carry over"
    assert (step.first_loss, step.last_loss) == (torch.tensor(0.25), torch.tensor(0.21875))
    for dtype in ("fp32", "fp16"):
        # The average is clipped, not each: of .4 and -.35 it is .025, below the norm allowed.
        for batch, expected in (((1.6, -1.4), -0.0125), ((1.6,), -0.05)):
            weight, _ = stepped(Clipped(), batch, dtype=dtype)
            assert weight == pytest.approx(expected, abs=1e-4)


class Lacking(torch.optim.AdamW):
    """As on a backend that claims the fused kernel and raises when it is called."""

    def step(self, *_: Any) -> None:  # type: ignore[override]
        raise NotImplementedError("_fused_adamw_")


def parameters_on(device: str) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, device=device)) for _ in range(2)]


def test_adamw_is_fused_on_an_accelerator_and_keeps_what_its_author_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert steps._has_fused(torch.optim.AdamW, torch.device("cpu"))
    assert not steps._has_fused(Lacking, torch.device("cpu"))
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


def test_tf32_is_on_for_tf32_alone_and_only_a_warning_of_ours_fails_a_test() -> None:
    backends: Any = torch.backends
    for dtype in ("tf32", "bf16", "tf32", "fp32"):
        set_matmul_precision(dtype)  # type: ignore[arg-type]
        is_tf32 = dtype == "tf32"
        mode = "tf32" if is_tf32 else "ieee"
        # inductor of torch 2.10 reads the older ones, which raise where the newer ones disagree.
        assert torch.get_float32_matmul_precision() == ("high" if is_tf32 else "highest")
        assert backends.cuda.matmul.allow_tf32 is is_tf32
        assert backends.cudnn.allow_tf32 is is_tf32
        assert backends.cuda.matmul.fp32_precision == backends.cudnn.conv.fp32_precision == mode
        assert backends.mkldnn.matmul.fp32_precision == "ieee"
    for module in ("torch._inductor.compile_fx", "torch"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.warn_explicit("use TF32", UserWarning, "compile_fx.py", 1, module=module)
        assert len(seen) == 1
    for module in ("bench.measure.engine.steps", "torchless"):
        with pytest.raises(UserWarning):
            warnings.warn_explicit("mend me", UserWarning, "steps.py", 1, module=module)
