"""A net is built on its device, and compiled for the shapes of the measurement alone."""

from typing import Any

import pytest
import torch

from bench.measure.engine.torch_engine import TorchEngine
from bench.measure.messages import TrialRequest
from tests.measure.trial_requests import request_of


def request_for(*, prompt_tokens: int, compile_mode: str | None = None) -> TrialRequest:
    overrides = {"prompt_tokens": prompt_tokens, "batch": 3}
    return request_of("llm-prefill", overrides=overrides, compile=True, compile_mode=compile_mode)


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
    engine = TorchEngine(request_for(prompt_tokens=24), on_stage=lambda _name: None)
    engine.build()
    num_checked = len(num_dynamic)
    engine.step()
    assert num_checked > 0
    assert len(num_dynamic) > num_checked
    assert set(num_dynamic) == {0}


def test_a_net_is_built_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(request_for(prompt_tokens=8), on_stage=lambda _: None)
    built = engine.workload.build_net
    assert {p.device.type for p in engine._build_net().parameters()} == {"cpu"}
    engine.device = torch.device("meta")  # stands for an accelerator
    assert {p.device.type for p in engine._build_net().parameters()} == {"meta"}

    def build_where_random_numbers_are() -> Any:
        torch.rand(3)
        if torch.get_default_device().type == "meta":
            raise NotImplementedError("aten::normal_")
        return built()

    monkeypatch.setattr(
        type(engine.workload), "build_net", lambda _: build_where_random_numbers_are()
    )
    torch.manual_seed(0)
    fallen_back = engine._build_net()
    torch.manual_seed(0)
    expected = build_where_random_numbers_are()
    for one, other in zip(fallen_back.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
def test_graphs_are_told_of_each_step_and_missing_ones_are_noticed(
    mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    begun: list[int] = []

    def compiled(net: Any, *, mode: str | None) -> Any:
        asked.append(mode)
        return net

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    request = request_for(prompt_tokens=8, compile_mode=mode)
    engine = TorchEngine(request, on_stage=lambda _: None)
    engine.build()
    for _ in range(2):
        engine.step()
    assert asked == [mode, mode], "the check at tiny and the net that is measured"
    assert len(begun) == (0 if mode is None else 2)
    assert engine.lacks_graphs() is (mode is not None), "a CPU has none"
