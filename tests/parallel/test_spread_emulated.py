"""What each layout sends, counted on an emulated link, and what may be asked of a layout."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from bench.core.errors import UsageError
from bench.core.nouns import Dtype, Layout
from bench.emulate.group import Emulation
from bench.emulate.replay import StepTrace, replay
from bench.hardware.costs.cost import CostModel
from bench.hardware.links.topology import parse_topology
from bench.measure.engine.precision import place_net
from bench.measure.engine.steps import InferStep, TrainStep
from bench.parallel.laid_out import LaidOut, lay_out
from bench.parallel.sharded import default_units
from bench.parallel.support import COMBINED, NAMES, Mitigation, check_layout, parse_mitigation
from bench.workload import Phase, TensorPlan
from tests.emulate.fixed_model import FixedModel, assert_consistent, emulated
from tests.workloads.steps_of_workloads import generated_batch
from workloads import imaging
from workloads.llm import Workload

TINY = Workload(**Workload.sizes["tiny"])
LARGE = Workload()
IMAGING = imaging.Workload(**imaging.Workload.sizes["tiny"])
TRAIN, PREFILL, DECODE, _ = TINY.phases
PATCHES, VOLUMES = IMAGING.phases
CPU = torch.device("cpu")
MODELLED_S = 0.002
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
def spread(
    layout: Layout,
    *,
    dtype: Dtype = "fp32",
    workload: Any = TINY,
    phase: Phase = TRAIN,
    num_ranks: int | None = None,
    place: Callable[[nn.Module], nn.Module] = nn.Module.train,
) -> Iterator[tuple[Emulation, LaidOut]]:
    model, ranks = FixedModel(MODELLED_S, node_size=2), num_ranks or layout.devices
    torch.manual_seed(0)
    net = place(workload.build_net())
    with emulated(model, num_ranks=ranks) as emulation:
        laid = lay_out(net, workload=workload, phase=phase, layout=layout, device=CPU, dtype=dtype)
        yield emulation, laid


def traced(emulation: Emulation, step: Callable[..., object], *batches: Any) -> StepTrace:
    emulation.begin_step()
    step(*batches)
    return emulation.end_step().trace


def traces(layout: Layout, *, dtype: Dtype = "fp32", steps: int = 1) -> list[StepTrace]:
    """Trace training steps after two that are not: DDP begins its second by ordering buckets."""
    micro_batches = [generated_batch(TINY, TRAIN)] * layout.grad_accum
    with spread(layout, dtype=dtype) as (emulation, laid):
        step = TrainStep(TINY, laid, device_type="cpu", dtype=dtype)
        found = [traced(emulation, step, *micro_batches) for _ in range(2 + steps)]
    for trace in found:
        assert_consistent(trace)
    return found[2:]


def sent_bytes(trace: StepTrace) -> int:
    return sum(one.num_bytes for one in trace.collectives)


def ops(trace: StepTrace) -> Counter[tuple[str, int]]:
    return Counter((one.op, one.group.num_ranks) for one in trace.collectives)


DDP = Layout(mode="emulated", strategy="ddp", data=8)
FSDP = Layout(mode="emulated", strategy="fsdp", data=2)
TP = Layout(mode="emulated", strategy="tp", tensor=2)
PP = Layout(mode="simulated", strategy="pp", pipeline=2)


def test_ddp_sends_each_gradient_once_a_step_in_buckets() -> None:
    errors = []
    for mitigate, ranks, share in (("", 8, 1), ("fp16", 65_536, 0.5), ("bf16", 8, 0.5)):
        many = {} if mitigate else {"bucket_bytes": 50_000, "grad_accum": 3}
        *others, trace = traces(replace(DDP, mitigate=mitigate, data=ranks, **many), steps=3)
        assert sent_bytes(trace) == share * GRADIENT_BYTES
        assert set(ops(trace)) == {("all_reduce", ranks)}
        kinds = [mark.kind for mark in trace.marks if mark.kind != "wait"]
        assert kinds == sorted(kinds, reverse=True), "all issues, then all drains"
        assert (len(trace.collectives) > 1) == (mitigate == "")
        errors += [1 - replay(each).step_s / each.duration_s for each in (*others, trace)]
        slow = replay(trace, model=FixedModel(1.0))
        assert slow.comm_total_s == len(trace.collectives) < slow.step_s
    # The same compute on the same link, simulated: what waking up took is all that differs.
    assert -1e-9 < min(errors) < 0.03


def test_powersgd_sends_two_factors_of_a_matrix_and_averaging_all_weights_once_a_period() -> None:
    (trace,) = traces(replace(DDP, mitigate="powersgd-3"))
    assert sent_bytes(trace) == sum(
        4 * (3 * sum(one.shape) if one.ndim == 2 else one.numel())
        for one in TINY.build_net().parameters()
    )
    for name, share in (("postlocalsgd-3", 1), ("diloco-3+fp16", 0.5)):
        layout, sent = replace(DDP, mitigate=name), share * GRADIENT_BYTES
        assert [sent_bytes(trace) for trace in traces(layout, steps=4)] == [sent, 0, 0, sent]
    with spread(layout) as (_, laid):
        assert laid.period_steps == 3
        assert laid.overlap.startswith("none")


def test_fsdp_gathers_every_unit_and_reduces_gradients_once() -> None:
    units = TINY.layers + 1
    gathered = []
    for grad_accum, dtype in ((1, "fp32"), (2, "bf16")):
        (trace,) = traces(replace(FSDP, grad_accum=grad_accum), dtype=dtype)  # type: ignore[arg-type]
        # The root keeps its weights from forward to backward; one more sum is the gradients' norm.
        gathers = grad_accum * (2 * units - 1)
        assert ops(trace) == {
            ("all_gather", 2): gathers, ("reduce_scatter", 2): units, ("all_reduce", 2): 1
        }  # fmt: skip
        reduced = [one.num_bytes for one in trace.collectives if one.op == "reduce_scatter"]
        assert sum(reduced) == GRADIENT_BYTES
        gathered.append(sum(gathered_bytes(trace)))
    assert gathered[0] == gathered[1], "twice as often, of half the bytes"


def test_tensor_parallelism_sums_activations_twice_a_layer_and_direction() -> None:
    (trace,) = traces(TP)
    assert set(ops(trace)) == {("all_reduce", 2)}
    activations = [one for one in trace.collectives if one.num_bytes == ACTIVATION_BYTES]
    # And the embedding's output and the head's input, once each.
    assert len(activations) == 4 * TINY.layers + 2
    # What is left is a number for each token of the loss, three times, and the gradients' norm.
    tokens = TINY.batch * TINY.sequence_tokens
    rest = sorted(one.num_bytes for one in trace.collectives if one not in activations)
    assert rest == [4, 4 * tokens, 4 * tokens, 4 * tokens]
    # It hides behind nothing where a step is simulated.
    model = CostModel(parse_topology("bw=100GB/s,latency=5us"))
    again = replay(trace, model=model, waits_hide=False)
    assert again.comm_exposed_s == pytest.approx(again.comm_total_s)
    assert again.step_s == pytest.approx(again.compute_s + again.comm_total_s)


def test_copies_of_a_cut_net_send_their_parts_across_and_tied_weights_stay_one() -> None:
    (trace,) = traces(replace(TP, data=4))
    across = [one for one in trace.collectives if one.group.num_ranks == 4]
    parts = sum(
        4 * one.numel() // (2 if one.ndim == 2 else 1) for one in TINY.build_net().parameters()
    )
    assert sum(one.num_bytes for one in across) == parts
    with spread(TP) as (_, laid):
        assert 4 * sum(one.numel() for one in laid.module.parameters()) == parts


def test_prefill_gathers_only_the_last_logits_by_our_plan() -> None:
    with spread(TP, phase=PREFILL, place=nn.Module.eval) as (emulation, laid):
        step = InferStep(TINY, PREFILL, laid.net, device_type="cpu", dtype="fp32")
        ids = torch.zeros(TINY.batch, TINY.prompt_tokens, dtype=torch.long)
        trace = traced(emulation, step, ids)
    assert step.last_output.shape == (TINY.batch, TINY.vocab)
    assert gathered_bytes(trace) == [4 * TINY.batch * TINY.vocab]
    assert ops(trace)[("all_reduce", 2)] == 2 * TINY.layers + 1
    # The plan that transformers has gathers all of them.
    with spread(TP, workload=planned(None)) as (emulation, laid):
        ids = torch.zeros(2, TINY.sequence_tokens + 1, dtype=torch.long)
        trace = traced(emulation, lambda ids: TINY.loss(laid.net, ids).backward(), ids)
    assert 4 * 2 * TINY.sequence_tokens * TINY.vocab in gathered_bytes(trace)


def test_what_does_not_fit_the_net_or_the_group_is_refused() -> None:
    place = partial(place_net, device=CPU, channels_last=True)
    channels_last = {"workload": IMAGING, "phase": PATCHES, "place": place}
    plans = {
        "cuts only one": {"lm_head": "colwise_gather_output"},  # it shares the embedding's matrix
        "names 'model.layers": {"model.layers.*.mlp.up": "colwise"},
        "style 'diagonal' is not one of": {"lm_head": "diagonal"},
    }
    cases: list[tuple[Layout, dict[str, Any], type[Exception], str]] = [
        *((TP, {"workload": planned(plans[words])}, ValueError, words) for words in plans),
        (FSDP, channels_last, UsageError, "leave --channels-last out"),
        (DDP, {"num_ranks": 4}, ValueError, "4 ranks, but the layout has 8"),
    ]
    for layout, more, error, words in cases:
        with pytest.raises(error, match=words), spread(layout, **more):
            pass


def test_units_are_the_repeated_blocks_and_a_single_device_is_left_alone() -> None:
    llama = TINY.build_net()
    laid = lay_out(llama, workload=TINY, phase=TRAIN, layout=Layout(), device=CPU, dtype="fp32")
    assert (laid.net, laid.overlap) == (llama, "")
    assert default_units(llama) == list(llama.model.layers)
    plain = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 1))
    assert default_units(plain) == [plain[0], plain[2]]


def test_what_can_be_run_is_let_through() -> None:
    for layout in (Layout(), Layout(grad_accum=4), DDP, FSDP, TP, replace(TP, data=4), PP,
                   replace(DDP, mitigate="diloco-4", grad_accum=2),
                   replace(TP, data=2, mitigate="powersgd-4")):  # fmt: skip
        check_layout(TINY, TRAIN, layout)
    check_layout(TINY, PREFILL, TP)
    check_layout(TINY, DECODE, FSDP)
    check_layout(LARGE, TRAIN, replace(TP, tensor=8))
    check_layout(IMAGING, PATCHES, DDP)
    check_layout(IMAGING, VOLUMES, FSDP)
    check_layout(TINY, TRAIN, replace(DDP, bucket_bytes=2**20), is_compiled=True)
    small = replace(DDP, bucket_bytes=2**19)
    check_layout(TINY, TRAIN, small)
    with pytest.raises(UsageError, match="at least 1 MiB"):
        check_layout(TINY, TRAIN, small, is_compiled=True)


@pytest.mark.parametrize(
    ("workload", "phase", "layout", "words"),
    [
        (TINY, TRAIN, replace(TP, tensor=4), "kv_heads 2 of llm .* possible here: 2$"),
        (LARGE, TRAIN, replace(TP, tensor=6), "possible here: 4 or 8$"),
        (LARGE, TRAIN, replace(TP, tensor=64), "possible here: 8$"),
        (TINY, PREFILL, DDP, "communicate nothing in prefill"),
        (TINY, PREFILL, replace(TP, data=2), "communicate nothing"),
        (TINY, PREFILL, Layout(grad_accum=2), "--grad-accum is for training"),
        (TINY, DECODE, replace(TP, mitigate="fp16"), "--mitigate is for training"),
        (TINY, PREFILL, PP, "for training steps"),
        (TINY, TRAIN, replace(PP, pipeline=64), "layers"),
        (IMAGING, PATCHES, PP, "pipeline"),
        (TINY, TRAIN, replace(FSDP, tensor=2), "divides the batch alone"),
        (TINY, TRAIN, replace(FSDP, mitigate="fp16"), "fsdp has shards"),
        (TINY, TRAIN, replace(TP, mitigate="fp16"), "with --dp 2"),
        (TINY, TRAIN, replace(PP, mitigate="fp16"), "not simulated for stages"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(
    workload: Any, phase: Phase, layout: Layout, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        check_layout(workload, phase, layout)
    assert "\n" not in str(caught.value)


def test_names_of_mitigations_are_read_or_refused_in_one_clear_line() -> None:
    meanings = {
        "": Mitigation(),
        "fp16": Mitigation(half="fp16"),
        "BF16": Mitigation(half="bf16"),
        "powersgd-1000000": Mitigation(powersgd_rank=1_000_000),
        "bf16 + powersgd-1": Mitigation(powersgd_rank=1, half="bf16"),
        "postlocalsgd-2": Mitigation(averaging="postlocalsgd", period_steps=2),
        "diloco-500+bf16": Mitigation(averaging="diloco", period_steps=500, half="bf16"),
    }
    for text, meaning in meanings.items():
        assert parse_mitigation(text) == meaning
    for name in [*NAMES, *COMBINED]:
        filled = name.replace("-R", "-4").replace("-H", "-8")
        assert not parse_mitigation(filled).is_none
    refused = {
        "powersgd-4": "powersgd",
        "from 1": "powersgd-0",
        "from 2": "diloco-1",
        "whole number": "diloco-x diloco-²",
        "to 1000000": "powersgd-1000001",
        "did you mean 'diloco-H'": "dilocco-4",
        "do not go together":
            "fp16+bf16 fp16+fp16 powersgd-2+diloco-4 powersgd-2+fp16+diloco-4",
        "round": "postlocalsgd-4+fp16",
        "not one of": "fp16+",
    }  # fmt: skip
    for words, texts in refused.items():
        for text in texts.split():
            with pytest.raises(UsageError, match=words) as caught:
                parse_mitigation(text)
            assert "\n" not in str(caught.value)
