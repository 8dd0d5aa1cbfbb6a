"""Stages on one device: the net's own arithmetic, timed stage by stage, simulated as a pipeline."""

import importlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from fake_device import ONE_ITEM, QueueEngine, in_turn
from torch import nn

from bench.core.errors import MeasurementError, UsageError
from bench.core.nouns import Dtype, Layout
from bench.devices.torch.adapter import Adapter
from bench.measure.engine.pipeline_engine import PipelineEngine, simulate_window, stages_of
from bench.measure.engine.staged_step import StageClock, StagedStep, StageFacts
from bench.measure.engine.steps import TrainStep
from bench.measure.timing import summary
from bench.measure.timing.clock import FakeClock
from bench.measure.timing.window import Window, run_window
from bench.parallel.support import check_layout
from tests.emulate.fixed_model import round_prices
from tests.measure.trial_requests import request_of

PP2 = Layout(mode="simulated", strategy="pp", pipeline=2, grad_accum=4, link="infinite")
LLM = importlib.import_module("workloads.llm").Workload


def llm(**overrides: Any) -> Any:
    """Return the workload at tiny, with four layers."""
    return LLM(**{**LLM.sizes["tiny"], "layers": 4, **overrides})


class SecondClock(FakeClock):
    """Each look is a second after the one before."""

    def now_s(self) -> float:
        self.advance(1.0)
        return super().now_s()


def trained(
    workload: Any, *, num_stages: int | None, num_steps: int = 1, dtype: Dtype = "fp32"
) -> tuple[Any, nn.Module]:
    """Return a step, through stages or through the whole net, that has run; and its net."""
    torch.manual_seed(0)
    net = workload.build_net().train()
    ids = torch.randint(0, workload.vocab, (workload.batch, 65))
    kind: dict[str, Any] = {"device_type": "cpu", "dtype": dtype}
    step: Any = TrainStep(workload, net, **kind)
    if num_stages is not None:
        clock = StageClock(Adapter(), clock=SecondClock())
        step = StagedStep(workload, net, num_stages=num_stages, clock=clock, **kind)
    for _ in range(num_steps):
        if num_stages is not None:
            step.clock.mark()
        step(ids)
    return step, net


WAIT_S = 0.125
"""Longer than a pass, and exact in binary."""
MILLISECONDS = round_prices(s_per_100_bytes=1e-3 / 10.24)
"""A millisecond for each KiB."""


@pytest.mark.parametrize(("num_stages", "is_tied"), [(1, True), (2, False), (3, True), (4, False)])
def test_two_steps_through_stages_are_two_steps_of_the_net(num_stages: int, is_tied: bool) -> None:
    workload = llm(is_tied=is_tied)
    whole, whole_net = trained(workload, num_stages=None, num_steps=2)
    parts, net = trained(workload, num_stages=num_stages, num_steps=2)
    for one, other in (
        (parts.first_loss, whole.first_loss),
        (parts.last_loss, whole.last_loss),
        *zip(net.parameters(), whole_net.parameters(), strict=True),
    ):
        torch.testing.assert_close(one, other)
    assert parts.clock.passes_s() == [[1.0] * (2 * num_stages + 1)] * 2, "and the optimizer"


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_sixteen_bits_train_through_stages(dtype: Dtype) -> None:
    parts, _ = trained(llm(layers=2), num_stages=2, num_steps=8, dtype=dtype)
    assert float(parts.last_loss) < float(parts.first_loss)


def test_facts_say_what_is_handed_on_and_what_is_reduced() -> None:
    parts, net = trained(llm(is_tied=True), num_stages=2)
    facts = parts.facts()
    embedding_bytes = 4 * 256 * 64
    assert facts.output_bytes == (8 * 64 * 64 * 4,), "B x T x H in fp32"
    assert facts.shared_bytes == embedding_bytes
    every_bytes = 4 * sum(p.numel() for p in net.parameters())
    assert sum(facts.gradient_bytes) == every_bytes + embedding_bytes
    assert sum(facts.parameter_fracs) == pytest.approx(1 + embedding_bytes / every_bytes)
    untied, _ = trained(llm(is_tied=False), num_stages=2)
    assert untied.facts().shared_bytes == 0
    # Backwards come in reverse order.
    facts = replace(EQUAL, output_bytes=(100,), parameter_fracs=(0.25, 0.75))
    first, last = stages_of([1.0, 2.0, 5.0, 4.0, 8.0], facts=facts)
    assert (first.forward_s, first.backward_s, first.optimizer_s) == (1.0, 4.0, 2.0)
    assert (last.forward_s, last.backward_s, last.optimizer_s) == (2.0, 5.0, 6.0)
    assert (first.output_bytes, last.output_bytes) == (100, 0)


def test_stages_that_make_another_loss_are_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong(LLM):  # type: ignore[valid-type,misc]
        def build_net(self) -> nn.Module:
            net: nn.Module = super().build_net()
            for parameter in net.parameters():
                nn.init.normal_(parameter, std=1.0)
            return net

        def pipeline_stages(self, net: Any, *, num_stages: int) -> Any:
            first, last = super().pipeline_stages(net, num_stages=num_stages)
            first.layers = first.layers[:-1]
            return [first, last]

    with pytest.raises(MeasurementError, match="pipeline_stages"):
        trained(Wrong(**{**LLM.sizes["tiny"], "layers": 4}), num_stages=2)


def test_a_queue_is_timed_by_events_without_waiting_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = QueueEngine(in_turn(1.0, 2.0, 3.0, 4.0), host_s=0.001)
    marks = StageClock(device, clock=device.clock)
    for _ in range(2):
        marks.mark()
        for _ in range(2):
            device.step()
            marks.mark()
        marks.end_pass()
    assert marks.passes_s() == [], "the device is behind"
    device.synchronize()
    assert [[round(s) for s in one] for one in marks.passes_s()] == [[1, 2], [3, 4]]
    assert device.num_live_events == 0
    monkeypatch.setattr(device, "make_event", lambda: None)
    marks = StageClock(device, clock=device.clock)
    for _ in range(3):
        device.step()
        marks.mark()
    marks.end_pass()
    assert marks.passes_s()[0] == pytest.approx([4, 4], abs=0.01), "waited for: it has no events"


def test_layers_are_dealt_so_that_the_head_does_not_make_the_last_stage_slow() -> None:
    from workloads._llm.llm_net import layer_ends

    assert layer_ends(LLM(), num_stages=1) == [16]
    assert layer_ends(LLM(), num_stages=4) == [5, 10, 15, 16], "its head is worth four layers"
    narrow = llm(vocab=256, hidden=128, intermediate=512, heads=4, layers=8)
    assert layer_ends(narrow, num_stages=4) == [2, 4, 6, 8]
    for num_stages in range(1, 9):
        ends = layer_ends(narrow, num_stages=num_stages)
        assert ends[-1] == 8 and len(ends) == num_stages
        assert all(b > a for a, b in pairwise([0, *ends])), "a layer at least"


def test_what_cannot_be_cut_or_laid_out_is_refused_in_one_line() -> None:
    workload = llm()
    for other, count, words in (
        (importlib.import_module("workloads.imaging").Workload(), 2, "skips"),
        (importlib.import_module("workloads.sleep").Workload(), 2, "cut"),
        (workload, 5, "4 layers"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            other.check_stages(count)
        assert "\n" not in str(caught.value)
    workload.check_stages(4)
    train = workload.phases[0]
    check_layout(workload, train, PP2)
    for change, words in (
        ({"schedule": "interleaved-3"}, "4 layers"),
        ({"schedule": "interleaved-2", "grad_accum": 3}, "multiples"),
        ({"tensor": 2}, "--tp 2"),
    ):
        with pytest.raises(UsageError, match=words):
            check_layout(workload, train, replace(PP2, **change))
        with pytest.raises(UsageError, match=words):
            engine_for(replace(PP2, **change))


EQUAL = StageFacts(
    output_bytes=(1024,), gradient_bytes=(2048, 2048), parameter_fracs=(0.5, 0.5), shared_bytes=0
)
NO_MESSAGES = replace(EQUAL, output_bytes=(0,))


def simulated(
    passes_s: list[list[float]], *, facts: StageFacts = EQUAL, clips: bool = False, **layout: Any
) -> tuple[Window, dict[str, Any]]:
    num_passes = len(passes_s)
    measured = Window(
        step_clock="host",
        start_s=0.0,
        end_s=1.0,
        step_s=[0.1] * num_passes,
        counts=[replace(ONE_ITEM, flops=6.0, data_wait_s=0.5)] * num_passes,
        host_bound_frac=0.5,
    )
    kind: Any = {"facts": facts, "model": MILLISECONDS, "clips": clips}
    layout_of_all = replace(PP2, **layout)
    window, row = simulate_window(measured, passes_s=passes_s, layout=layout_of_all, **kind)
    return window, dict(row)


def test_simulated_steps_by_hand() -> None:
    """Stages of 10 and 20 ms, 4 micro-batches, then 1 ms of optimizer: 30 ms * 5 + 1 ms."""
    passes_s = [[0.01, 0.01, 0.02, 0.02, 0.002]] * 3
    window, row = simulated(passes_s, facts=NO_MESSAGES, clips=True)
    assert window.step_s == pytest.approx([0.151] * 3)
    assert (window.wall_s, window.host_bound_frac) == (pytest.approx(0.453), None)
    assert {count.data_wait_s for count in window.counts} == {2.0}, "of 4 micro-batches"
    assert row["bubble_frac"] == pytest.approx(0.03 / 0.151)
    assert row["comm_exposed_ms"] == pytest.approx(0.0)
    speed = summary.speed_columns(window)
    assert speed["items"] == 3 * 4 * 2, "items of a pass, micro-batches"
    assert speed["throughput_per_s"] == pytest.approx(8 / 0.151)
    assert speed["step_median_ms"] == pytest.approx(151.0)
    assert speed["flops_per_item"] == pytest.approx(3.0)
    # Replicas multiply the work and reduce their gradients: 2 KiB at a millisecond each.
    passes_s = [[0.01, 0.01, 0.02, 0.02, 0.0]]
    window, row = simulated(passes_s, facts=NO_MESSAGES, clips=True, data=3)
    assert window.step_s == pytest.approx([0.152])
    assert sum(count.items for count in window.counts) == 2 * 4 * 3
    assert (row["step_low_ms"], row["step_high_ms"]) == pytest.approx((151.0, 154.0))
    assert row["compute_step_ms"] == pytest.approx(150.0)
    assert row["comm_total_ms"] == pytest.approx(2.0)
    assert row["link_method"] == "alpha-beta"


def test_micro_batches_are_passes_that_followed_one_another_and_very_many_are_thinned() -> None:
    """One stage: a step is the sum of its micro-batches' passes, here 4 of 0.1, 0.2, ... 2.0 s."""
    passes_s = [[0.05 * (index + 1), 0.05 * (index + 1), 0.0] for index in range(160)]
    facts = StageFacts(output_bytes=(), gradient_bytes=(0,), parameter_fracs=(1.0,), shared_bytes=0)
    window, row = simulated(passes_s, facts=facts, pipeline=1)
    expected_s = [sum(0.1 * (4 * step + index + 1) for index in range(4)) for step in range(40)]
    assert window.step_s == pytest.approx(expected_s)
    assert (row["bubble_frac"], row["link_method"]) == (pytest.approx(0.0), None)
    # Each pass is slow in one of two stages, in turn: no stage is slow for a whole step.
    slow_first, slow_last = [0.03, 0.01, 0.0, 0.0, 0.0], [0.01, 0.03, 0.0, 0.0, 0.0]
    facts = replace(NO_MESSAGES, gradient_bytes=(0, 0))
    window, _ = simulated([slow_first, slow_last] * 200, facts=facts, grad_accum=20)
    assert max(window.step_s) < 20 * 0.03 * 0.8, "0.63 if a pass stood for all"
    for num_passes, grad_accum, least, most in (
        (5, 8, 5, 5),
        (100, 64, 20, 20),
        (5000, 4, 40, 400),
    ):
        passes_s = [[0.01, 0.01, 0.02, 0.02, 0.0]] * num_passes
        window, _ = simulated(passes_s, grad_accum=grad_accum)
        assert least <= len(window.step_s) == len(window.counts) <= most


def engine_for(layout: Layout) -> PipelineEngine:
    return PipelineEngine(request_of("llm-train", overrides={"layers": 4}, layout=layout))


def test_an_engine_measures_passes_and_simulates_steps() -> None:
    engine = engine_for(PP2)
    engine.build()
    engine.step()
    feed = engine._feed

    def late() -> Iterator[Any]:
        for batch, collated, _ in feed:
            time.sleep(WAIT_S)
            yield batch, collated, WAIT_S

    engine._feed = late()
    measured = run_window(engine, should_stop=lambda elapsed_s, step_s: len(step_s) >= 3)
    window, row = engine.simulated(measured, model=MILLISECONDS)
    assert len(window.step_s) == len(measured.counts) >= 3
    assert sum(c.items for c in window.counts) == 4 * sum(c.items for c in measured.counts)
    passes_s = engine.staged.clock.passes_s()
    assert min(window.step_s) > 4 * WAIT_S, "the first stage waits for each of its micro-batches"
    assert {count.data_wait_s for count in window.counts} == {4 * WAIT_S}
    assert len(passes_s) == len(measured.counts) + 1, "the one before the window is not simulated"
    for pass_s, intervals_s in zip(measured.step_s, passes_s[1:], strict=True):
        assert sum(intervals_s) <= pass_s, "what is timed lies inside the engine's step"
    fastest_s = min(max(one[0] + one[3], one[1] + one[2]) for one in passes_s[1:])
    assert min(window.step_s) > 2 * fastest_s, "a stage has four micro-batches to do"
    assert 0.0 < float(str(row["bubble_frac"])) < 1.0
    assert None not in engine.losses()
    assert engine.output_problem() is None
