"""Operators counted from shapes and timed by class, against what is known of small programs."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bench import discovery
from bench.devices.torch.adapter import Adapter
from bench.hardware.operators import Operators, total
from bench.measure import operator_count
from bench.measure import operator_profile as profile
from bench.measure.operator_count import class_of, count_step, stored_bytes
from bench.measure.operator_profile import profile_request, times_by_class, with_times
from bench.measure.timing.clock import FakeClock
from scripts.operator_mixes import count_phase


def by_kind(found: list[Operators]) -> dict[str, Operators]:
    assert len({one.kind for one in found}) == len(found)
    return {one.kind: one for one in found}


def test_operators_fall_into_their_class_and_are_counted_by_hand() -> None:
    for kind, names in {
        "gemm": "addmm mm bmm",
        "conv": "convolution_backward cudnn_convolution mkldnn_convolution",
        "attention": "_scaled_dot_product_flash_attention_backward _efficient_attention_forward",
        "norm": "native_layer_norm_backward _softmax sum",
        "copy": "copy_ _to_copy cat embedding",
        "vector": "add silu mul_ _foreach_add_ leaky_relu_backward",
    }.items():
        assert {class_of(f"aten::{name}") for name in names.split()} == {kind}
    a, b = torch.ones(8, 16), torch.ones(16, 32)
    gemm = by_kind(count_step(lambda: a @ b))["gemm"]
    assert gemm.flops == 2 * 8 * 16 * 32
    assert gemm.bytes == gemm.least_bytes == 4 * (8 * 16 + 16 * 32 + 8 * 32)
    assert (gemm.calls, gemm.dtype) == (1, "fp32")
    x = torch.ones(100)
    vector = by_kind(count_step(lambda: x + 1.0))["vector"]
    assert (vector.bytes, vector.least_bytes, vector.flops) == (800.0, 0.0, 100.0), "can be fused"
    # Views and allocations move nothing, and expanded tensors are stored once.
    x = torch.ones(4, 4)
    assert count_step(lambda: x.t()[0:1].view(4).detach()) == []
    assert count_step(lambda: torch.empty(1000)) == []
    assert stored_bytes(torch.ones(1, 10).expand(1000, 10)) == 40
    assert stored_bytes(torch.empty(0, 7)) == 0
    with torch.inference_mode():  # hides nothing
        assert total(count_step(lambda: a @ b), "flops") == gemm.flops


def test_the_optimizer_is_a_class_of_its_own_with_its_least_traffic() -> None:
    for kernels in ({}, {"foreach": True}, {"fused": True}):
        layer = nn.Linear(10, 10, bias=False)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, **kernels)

        def step(layer: Any = layer, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            layer(torch.ones(4, 10)).sum().backward()
            optimizer.step()

        step()
        found = by_kind(count_step(step))["optimizer"]
        # Weight and momentum read and written, gradient read: five times 100 floats.
        assert found.bytes >= found.least_bytes == 5 * 400


def test_attention_with_grouped_heads_needs_no_formula_of_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise AssertionError("sdpa_flop_count: query/key/value shapes are incompatible")

    attend = torch.ops.aten._scaled_dot_product_flash_attention
    attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_backward
    # As torch 2.11 does for a query that has more heads than keys.
    for kernel in (attend, attend_backward):
        monkeypatch.setitem(operator_count.flop_registry, kernel, refuse)
    query, key, value = (
        torch.empty(2, *shape, 16, device="meta", dtype=torch.bfloat16)
        for shape in ((8, 32), (2, 48), (2, 48))
    )
    forward = by_kind(count_step(lambda: attend(query, key, value)))["attention"]
    product = 2 * (2 * 8 * 32 * 48 * 16)
    assert (forward.flops, forward.dtype) == (2 * product, "bf16")
    output, log_sum, *_, seed, offset, _ = attend(query, key, value)
    known = (query, query, key, value, output, log_sum, None, None, 32, 48, 0.0, False)
    backward = count_step(lambda: attend_backward(*known, seed, offset))
    assert by_kind(backward)["attention"].flops == 5 * product


@pytest.mark.parametrize("name", ["imaging-train", "llm-decode"])
def test_fake_tensors_count_what_the_formula_says(name: str) -> None:
    workload_name, _, phase_name = name.partition("-")
    found = discovery.load(workload_name)
    workload = discovery.instance(found, size="tiny", overrides={})
    phase = found.phase(phase_name)
    operators = count_phase(workload, phase)
    per_item: Any = workload.flops_per_item(phase)
    matrix = sum(one.flops for one in operators if one.is_matrix)
    assert matrix == pytest.approx(per_item * workload.items(phase, None), rel=0.04)
    # Older transformers make the rotary table by a small product in fp32.
    large = [one for one in operators if one.is_matrix and one.flops > 0.01 * matrix]
    assert {one.dtype for one in large} == {"bf16"}


def event(name: str, *, cpu: float, device: float = 0.0, parent: Any = None) -> Any:
    times = {"self_cpu_time_total": cpu, "self_device_time_total": device}
    return SimpleNamespace(name=name, cpu_parent=parent, **times)


def test_times_go_to_the_class_and_none_is_lost() -> None:
    update = event("Optimizer.step#SGD.step", cpu=5.0)
    events = [
        event("aten::mm", cpu=1e6, device=3e6),
        event("aten::add", cpu=2e6, device=4e6),
        event("aten::add_", cpu=1e6, device=1e6, parent=update),
        event("DataLoader", cpu=9e6),
        update,
    ]
    for on_device, gemm, vector in ((False, 1.0, 2.0), (True, 3.0, 4.0)):
        found = times_by_class(events, on_device=on_device)
        assert found == {"gemm": gemm, "vector": vector, "optimizer": 1.0}
    # Dtypes of a class share its time by bytes.
    counts = [
        Operators(kind="gemm", dtype=dtype, calls=1, flops=1.0, bytes=moved, least_bytes=moved)
        for dtype, moved in (("bf16", 30.0), ("fp32", 10.0))
    ]
    timed = with_times(counts, {"gemm": 8.0, "norm": 2.0}, per=2.0)
    assert [one.time_s for one in timed] == [3.0, 1.0, 1.0]
    assert timed[-1].kind == "other" and timed[-1].bytes == 0.0


NO_CORES: Any = SimpleNamespace(cpu_ids=())


class Multiplying:
    """An engine whose step is one product and takes 0.25 s by a clock of its own."""

    device = torch.device("cpu")

    def __init__(self, clock: FakeClock, *, is_asynchronous: bool = True) -> None:
        self._clock = clock
        self.adapter = Adapter()
        self.adapter.is_asynchronous = is_asynchronous

    def build(self, *, is_checked: bool) -> None:
        pass

    def step(self) -> None:
        torch.ones(2, 2) @ torch.ones(2, 2)
        self._clock.advance(0.25)


def test_the_start_of_the_profiler_is_no_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()

    class Slow(torch.profiler.profile):
        def __enter__(self) -> Any:
            clock.advance(3.0)
            return super().__enter__()

    def kernels(events: Any, *, on_device: bool) -> dict[str, float]:
        assert on_device
        return {"gemm": 0.2 * sum(one.name == "aten::mm" for one in events)}

    monkeypatch.setattr(torch.profiler, "profile", Slow)
    monkeypatch.setattr(profile, "TorchEngine", lambda *_, **__: Multiplying(clock))
    monkeypatch.setattr(profile, "Clock", lambda: clock)
    monkeypatch.setattr(profile, "device_activity", lambda _: torch.profiler.ProfilerActivity.CPU)
    monkeypatch.setattr(profile, "times_by_class", kernels)
    found = profile_request(NO_CORES)
    assert (found["clock"], found["step_s"], found["steps"]) == (profile.KERNELS, 0.25, 5)
    assert found["covered_frac"] == pytest.approx(0.2 / 0.25)
    gemm = next(one for one in found["operators"] if one["kind"] == "gemm")
    # Neither is the step that follows the start: all the products after it are left.
    assert (gemm["calls"], gemm["time_s"]) == (1, pytest.approx(0.2))


def test_what_the_host_queues_is_not_called_time_of_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for is_asynchronous in (True, False):
        engine = Multiplying(FakeClock(), is_asynchronous=is_asynchronous)
        monkeypatch.setattr(profile, "TorchEngine", lambda *_, made=engine, **__: made)
        # The profiler has no activity for this device, as on MPS.
        found = profile_request(NO_CORES)
        gemm = next(one for one in found["operators"] if one["kind"] == "gemm")
        assert gemm["flops"] == 2 * 2**3
        assert found["clock"] == (profile.UNTIMED if is_asynchronous else profile.OPERATORS)
        assert (gemm.get("time_s") is None) is is_asynchronous
    activities = torch.profiler.ProfilerActivity
    monkeypatch.setattr(torch.profiler, "supported_activities", lambda: {activities.XPU})
    for device_type, activity in (("xpu", activities.XPU), ("mps", None), ("cuda", None)):
        assert profile.device_activity(device_type) is activity
