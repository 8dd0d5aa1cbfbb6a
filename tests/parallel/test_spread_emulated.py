"""What each layout sends, counted on an emulated link and compared with what it must send."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from bench.core.errors import UsageError
from bench.core.nouns import Dtype, Layout
from bench.emulate.group import start_emulation
from bench.emulate.replay.recording import StepTrace
from bench.emulate.replay.simulate import replay
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.topology import parse_topology
from bench.measure.engine.precision import to_channels_last
from bench.measure.engine.steps import InferStep, TrainStep
from bench.parallel.laid_out import LaidOut, lay_out
from bench.parallel.sharded import default_units
from bench.workload import Phase, TensorPlan
from tests.workloads.steps_of_workloads import generated_batch
from workloads import imaging
from workloads.llm import Workload

TINY = Workload(**Workload.sizes["tiny"])
TRAIN, PREFILL, _ = TINY.phases
CPU = torch.device("cpu")
GRADIENT_BYTES = 4 * TINY.num_parameters()
ACTIVATION_BYTES = 4 * TINY.batch * TINY.sequence_tokens * TINY.hidden


def planned(styles: dict[str, str] | None) -> Workload:
    """The tiny Llama with another plan; None is the one that transformers has for it."""
    plan = TensorPlan(styles=styles, divides={})
    cls = type("Planned", (Workload,), {"tensor_parallel_plan": lambda *_: plan})
    return cls(**Workload.sizes["tiny"])  # type: ignore[no-any-return]


def gathered_bytes(trace: StepTrace) -> list[int]:
    return [one.num_bytes for one in trace.collectives if one.op == "all_gather"]


@contextmanager
def emulated(
    layout: Layout,
    *,
    dtype: Dtype = "fp32",
    workload: Any = TINY,
    phase: Phase = TRAIN,
    num_ranks: int | None = None,
    place: Callable[[nn.Module], nn.Module] = nn.Module.train,
) -> Iterator[tuple[Any, LaidOut]]:
    model = CostModel(parse_topology("infinite"))
    ranks = num_ranks or layout.devices
    emulation = start_emulation(num_ranks=ranks, model=model, device=CPU)
    try:
        torch.manual_seed(0)
        net = place(workload.build_net())
        laid = lay_out(net, workload=workload, phase=phase, layout=layout, device=CPU, dtype=dtype)
        yield emulation, laid
    finally:
        emulation.close()


def traces(layout: Layout, *, dtype: Dtype = "fp32", steps: int = 4) -> list[StepTrace]:
    """Trace training steps after two that are not: DDP begins its second by ordering buckets."""
    batch = generated_batch(TINY, TRAIN)
    with emulated(layout, dtype=dtype) as (emulation, laid):
        step = TrainStep(TINY, laid, device_type="cpu", dtype=dtype)
        micro_batches = [batch] * layout.grad_accum
        step(*micro_batches)
        step(*micro_batches)
        found = []
        for _ in range(steps):
            emulation.begin_step()
            step(*micro_batches)
            found.append(emulation.end_step().trace)
        return found


def sent_bytes(trace: StepTrace) -> int:
    return sum(one.num_bytes for one in trace.collectives)


def ops(trace: StepTrace) -> Counter[tuple[str, int]]:
    return Counter((one.op, one.group.num_ranks) for one in trace.collectives)


DDP = Layout(mode="emulated", strategy="ddp", data=8)
FSDP = Layout(mode="emulated", strategy="fsdp", data=2)
TP = Layout(mode="emulated", strategy="tp", tensor=2)


@pytest.mark.parametrize(("mitigate", "share"), [("", 1), ("fp16", 0.5), ("bf16", 0.5)])
@pytest.mark.parametrize("grad_accum", [1, 3])
def test_ddp_sends_each_gradient_once_a_step(mitigate: str, share: float, grad_accum: int) -> None:
    layout = dataclasses.replace(DDP, mitigate=mitigate, grad_accum=grad_accum)
    trace = traces(layout, steps=1)[0]
    assert sent_bytes(trace) == share * GRADIENT_BYTES
    assert set(ops(trace)) == {("all_reduce", 8)}


def test_smaller_buckets_make_more_messages() -> None:
    few, many = (
        len(traces(dataclasses.replace(DDP, bucket_bytes=size), steps=1)[0].collectives)
        for size in (2**20, 50_000)
    )
    assert few == 1 < many


def test_powersgd_sends_two_factors_of_each_matrix() -> None:
    trace = traces(dataclasses.replace(DDP, mitigate="powersgd-3"), steps=3)[-1]
    assert sent_bytes(trace) == sum(
        4 * (3 * sum(one.shape) if one.ndim == 2 else one.numel())
        for one in TINY.build_net().parameters()
    )


@pytest.mark.parametrize(("name", "share"), [("postlocalsgd-3", 1), ("diloco-3+fp16", 0.5)])
def test_averaging_sends_all_weights_once_a_period(name: str, share: float) -> None:
    layout = dataclasses.replace(DDP, mitigate=name)
    period = [share * GRADIENT_BYTES, 0, 0]
    assert [sent_bytes(trace) for trace in traces(layout, steps=6)] == period * 2
    with emulated(layout) as (_, laid):
        assert laid.period_steps == 3
        assert laid.overlap.startswith("none")


@pytest.mark.parametrize("grad_accum", [1, 2])
def test_fsdp_gathers_every_unit_and_reduces_gradients_once(grad_accum: int) -> None:
    trace = traces(dataclasses.replace(FSDP, grad_accum=grad_accum), steps=1)[0]
    units = TINY.layers + 1
    # The root keeps its weights from forward to backward.
    gathers = grad_accum * (2 * units - 1)
    # One more sum is the gradients' norm.
    assert ops(trace) == {
        ("all_gather", 2): gathers,
        ("reduce_scatter", 2): units,
        ("all_reduce", 2): 1,
    }
    reduced = [one.num_bytes for one in trace.collectives if one.op == "reduce_scatter"]
    assert sum(reduced) == GRADIENT_BYTES


def test_fsdp_gathers_half_precision_weights() -> None:
    full, half = (
        sum(gathered_bytes(traces(FSDP, dtype=dtype, steps=1)[0])) for dtype in ("fp32", "bf16")
    )
    assert half == full / 2


def test_tensor_parallelism_sums_activations_twice_a_layer_and_direction() -> None:
    trace = traces(TP, steps=1)[0]
    assert set(ops(trace)) == {("all_reduce", 2)}
    activations = [one for one in trace.collectives if one.num_bytes == ACTIVATION_BYTES]
    # And the embedding's output and the head's input, once each.
    assert len(activations) == 4 * TINY.layers + 2
    # What is left is a number for each token of the loss, three times, and the gradients' norm.
    tokens = TINY.batch * TINY.sequence_tokens
    rest = sorted(one.num_bytes for one in trace.collectives if one not in activations)
    assert rest == [4, 4 * tokens, 4 * tokens, 4 * tokens]


def test_copies_of_a_cut_net_send_their_parts_across() -> None:
    layout = Layout(mode="emulated", strategy="tp", tensor=2, data=4)
    trace = traces(layout, steps=1)[0]
    across = [one for one in trace.collectives if one.group.num_ranks == 4]
    parts = sum(
        4 * one.numel() // (2 if one.ndim == 2 else 1) for one in TINY.build_net().parameters()
    )
    assert sum(one.num_bytes for one in across) == parts


def test_tied_weights_stay_one_parameter() -> None:
    with emulated(TP) as (_, laid):
        whole = TINY.num_parameters()
        norms = (2 * TINY.layers + 1) * TINY.hidden
        assert sum(one.numel() for one in laid.module.parameters()) == (whole - norms) // 2 + norms


def test_prefill_gathers_only_the_last_logits() -> None:
    with emulated(TP, phase=PREFILL, place=nn.Module.eval) as (emulation, laid):
        step = InferStep(TINY, PREFILL, laid.net, device_type="cpu", dtype="fp32")
        emulation.begin_step()
        step(torch.zeros(TINY.batch, TINY.prompt_tokens, dtype=torch.long))
        trace = emulation.end_step().trace
    assert step.last_output.shape == (TINY.batch, TINY.vocab)
    assert gathered_bytes(trace) == [4 * TINY.batch * TINY.vocab]
    assert ops(trace)[("all_reduce", 2)] == 2 * TINY.layers + 1


def test_the_plan_of_transformers_can_be_used() -> None:
    with emulated(TP, workload=planned(None)) as (emulation, laid):
        emulation.begin_step()
        ids = torch.zeros(2, TINY.sequence_tokens + 1, dtype=torch.long)
        TINY.loss(laid.net, ids).backward()
        trace = emulation.end_step().trace
    assert 4 * 2 * TINY.sequence_tokens * TINY.vocab in gathered_bytes(trace)


@pytest.mark.parametrize(
    ("styles", "words"),
    [
        ({"lm_head": "colwise_gather_output"}, "cuts only one"),  # it shares the embedding's matrix
        ({"model.layers.*.mlp.up": "colwise"}, "names 'model.layers"),
        ({"lm_head": "diagonal"}, "style 'diagonal' is not one of"),
    ],
)
def test_a_plan_that_does_not_fit_the_net_is_refused(styles: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words), emulated(TP, workload=planned(styles)):
        pass


def test_fsdp_refuses_channels_last_weights() -> None:
    workload = imaging.Workload(**imaging.Workload.sizes["tiny"])
    words = "leave --channels-last out"
    more = {"workload": workload, "phase": workload.phases[0], "place": to_channels_last}
    with pytest.raises(UsageError, match=words), emulated(FSDP, **more):
        pass


def test_units_are_the_repeated_blocks() -> None:
    llama = TINY.build_net()
    assert default_units(llama) == list(llama.model.layers)
    plain = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 1))
    assert default_units(plain) == [plain[0], plain[2]]


def test_a_single_device_is_left_alone_and_a_group_of_another_size_refused() -> None:
    net = TINY.build_net()
    laid = lay_out(net, workload=TINY, phase=TRAIN, layout=Layout(), device=CPU, dtype="fp32")
    assert laid.net is net
    assert laid.overlap == ""
    words = "4 ranks, but the layout has 8"
    with pytest.raises(ValueError, match=words), emulated(DDP, num_ranks=4):
        pass


def test_tensor_parallel_traffic_hides_behind_nothing_where_a_step_is_simulated() -> None:
    model = CostModel(parse_topology("bw=100GB/s,latency=5us"))
    (trace,) = traces(TP, steps=1)
    again = replay(trace, model=model, is_free=True, waits_hide=False)
    assert again.comm_exposed_s == pytest.approx(again.comm_total_s)
    assert again.step_s == pytest.approx(again.compute_s + again.comm_total_s)
