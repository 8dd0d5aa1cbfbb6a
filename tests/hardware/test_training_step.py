"""A decoder's step by formula: held to a simulated pipeline, to reason, to published runs."""

from dataclasses import fields, replace
from itertools import accumulate, combinations
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.core.nouns import Layout
from bench.emulate.pipeline import PipelineStage, device_tasks, simulate_step
from bench.hardware.costs.cost import model_of
from bench.hardware.costs.training_jobs import SOFTWARE, ChipSpeed, TrainingJob
from bench.hardware.costs.training_memory import layer_token_bytes, training_memory_bytes
from bench.hardware.costs.training_nets import NETS, parse_net
from bench.hardware.costs.training_step import (
    Bound,
    layer_passes,
    product_s,
    stage_parameters,
    training_step,
)
from tests.hardware.published_trainings import flagperf, foundry, megatron, table_line

CHIP = ChipSpeed(
    matrix_flops_per_s=260e12,
    memory_bytes_per_s=1.7e12,
    attention_flops_per_s=190e12,
    attention_backward_flops_per_s=160e12,
    compute_units=108,
)
PAGE = Path(__file__).parents[2] / "docs" / "chips.md"


def job_of(layout: Layout, *, net: str = "llama3-8b", **others: object) -> TrainingJob:
    return TrainingJob(
        net=parse_net(net),
        layout=layout,
        **{"micro_batch": 1, "recompute": "none", "software": SOFTWARE["today"], **others},  # type: ignore[arg-type]
    )


jobs = st.builds(
    lambda tensor, stages, data, passes, micro, recompute, software: job_of(
        Layout(tensor=tensor, pipeline=stages, data=data, grad_accum=passes),
        micro_batch=micro,
        recompute=recompute,
        software=SOFTWARE[software],
    ),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 20),
    st.sampled_from([1, 2]),
    st.sampled_from(["none", "selective", "full"]),
    st.sampled_from(["today", "2021"]),
)


@given(
    stages=st.sampled_from([1, 2, 4, 8]), passes=st.integers(1, 24), tensor=st.sampled_from([1, 4])
)
@settings(max_examples=40, deadline=None)
def test_the_closed_form_of_a_pipeline_is_what_its_simulation_gives(
    stages: int, passes: int, tensor: int
) -> None:
    layout = Layout(pipeline=stages, tensor=tensor, grad_accum=passes)
    job = job_of(layout)
    time = training_step(job, chip=CHIP, model=None)
    ahead, back = layer_passes(job, chip=CHIP, model=None)
    each = job.net.layers / stages
    whole_s = (time.seconds - time.bubble_s - time.optimizer_s) / passes
    head_s = whole_s - each * (ahead.seconds + back.seconds)
    assert head_s > 0
    simulated = [
        PipelineStage(
            forward_s=each * ahead.seconds + (head_s / 3 if last else 0.0),
            backward_s=each * back.seconds + (2 * head_s / 3 if last else 0.0),
            optimizer_s=time.optimizer_s,
        )
        for last in (number == stages - 1 for number in range(stages))
    ]
    step = simulate_step(simulated, layout=replace(layout, tensor=1), model=None)
    assert time.seconds == pytest.approx(step.step_s, rel=1e-9)


@given(
    stages=st.sampled_from([2, 4]),
    chunks=st.sampled_from([2, 4]),
    rounds=st.integers(1, 5),
    vocab=st.sampled_from([1, 128256]),
)
@settings(max_examples=20, deadline=None)
def test_so_is_that_of_an_interleaved_one(
    stages: int, chunks: int, rounds: int, vocab: int
) -> None:
    layout = Layout(pipeline=stages, grad_accum=stages * rounds, schedule=f"interleaved-{chunks}")
    job = job_of(layout, net=f"llama3-8b:vocab={vocab}", chunks=chunks)
    time = training_step(job, chip=CHIP, model=None)
    ahead, back = layer_passes(job, chip=CHIP, model=None)
    each = job.net.layers / stages / chunks
    whole_s = (time.seconds - time.bubble_s - time.optimizer_s) / layout.grad_accum
    head_s = whole_s - each * chunks * (ahead.seconds + back.seconds)
    simulated = [
        PipelineStage(
            forward_s=each * ahead.seconds + (head_s / 3 if last else 0.0),
            backward_s=each * back.seconds + (2 * head_s / 3 if last else 0.0),
        )
        for last in (number == stages * chunks - 1 for number in range(stages * chunks))
    ]
    step = simulate_step(simulated, layout=layout, model=None)
    assert time.seconds - time.optimizer_s == pytest.approx(step.step_s, rel=0.01)


@pytest.mark.parametrize("chunks", [1, 2, 4])
@pytest.mark.parametrize("passes", [4, 8, 32])
def test_the_first_stage_holds_what_its_schedule_has_in_flight(chunks: int, passes: int) -> None:
    kind = "1f1b" if chunks == 1 else f"interleaved-{chunks}"
    layout = Layout(pipeline=4, grad_accum=passes, schedule=kind)
    job = job_of(layout, net="llama3-8b:vocab=1", chunks=chunks)
    ways = (1 if task.is_forward else -1 for task in device_tasks(layout, device=0))
    in_flight = max(accumulate(ways))
    held = job.tokens * layer_token_bytes(job) * job.net.layers / 4 / chunks
    counted = training_memory_bytes(job) - 18 * stage_parameters(job)
    assert counted == pytest.approx(in_flight * held, rel=1e-6)


def test_messages_of_an_interleaved_pipeline_run_beside_its_passes_today() -> None:
    layout = Layout(pipeline=4, grad_accum=16)
    net, link = "llama3-8b:vocab=1", model_of("h100-nvlink*8/ndr")
    waits, hides, slow, plain = (
        training_step(
            job_of(layout, net=net, chunks=chunks, software=SOFTWARE[program]),
            chip=CHIP, model=model,
        ).pipeline_s
        for program, chunks, model in (
            ("2021", 2, link), ("today", 2, link), ("today", 2, model_of("10gbe")),
            ("today", 1, link),
        )
    )  # fmt: skip
    message_s = waits / (2 * (16 * 2 + 3))
    assert hides == pytest.approx(2 * 3 * message_s)
    assert plain == pytest.approx(2 * (16 + 3) * message_s)
    assert slow > 2 * 3 * message_s * 100, "what takes longer than a pass is waited for"


@given(job=jobs)
@settings(max_examples=60, deadline=None)
def test_parts_add_up_a_better_chip_or_link_is_no_slower_and_computing_twice_saves_memory(
    job: TrainingJob,
) -> None:
    narrow, wide = model_of("h800-nvlink*8/ndr"), model_of("h100-nvlink*8/ndr")
    time = training_step(job, chip=CHIP, model=narrow)
    parts = [getattr(time, one.name) for one in fields(time)]
    assert time.seconds == pytest.approx(sum(parts)) and min(parts) >= 0.0
    assert training_step(job, chip=CHIP, model=None).seconds <= time.seconds
    assert training_step(job, chip=CHIP, model=wide).seconds <= time.seconds * 1.001
    for name in ("matrix_flops_per_s", "memory_bytes_per_s", "attention_flops_per_s"):
        faster = replace(CHIP, **{name: 2 * getattr(CHIP, name)})
        assert training_step(job, chip=faster, model=None).seconds <= time.seconds
    ends: tuple[Bound, ...] = ("low_s", "high_s")
    bounds = [training_step(job, chip=CHIP, model=narrow, bound=end).seconds for end in ends]
    assert bounds[0] <= time.seconds <= bounds[1]
    kept, again = (
        replace(job, recompute=how, software=SOFTWARE["today"]) for how in ("none", "full")
    )
    assert (
        training_step(again, chip=CHIP, model=None).seconds
        > training_step(kept, chip=CHIP, model=None).seconds
    )
    if job.net.layers > 2 * job.layout.pipeline:
        assert training_memory_bytes(again) < training_memory_bytes(kept)
    assert training_memory_bytes(job) > 16 * stage_parameters(job) / job.layout.data


def test_sharded_weights_wait_where_compute_hides_nothing_and_hold_a_share() -> None:
    def job(data: int, **others: object) -> TrainingJob:
        layout = Layout(data=data, grad_accum=3)
        return job_of(layout, net="gpt:h=2048,layers=8,heads=16,seq=64,vocab=64",
                      software=SOFTWARE["fsdp"], **others)  # fmt: skip

    net = job(4).net
    slow = model_of("bw=1GB/s,latency=0.001us")
    # Of four ranks each sends three quarters: twice weights and once fp32 gradients of each layer,
    # of the vocabulary each once; the last layer is not gathered again. Compute is next to nothing.
    layers, vocabulary = net.layers * net.layer_parameters, net.vocabulary_parameters
    sent = 3 / 4 * (8 * layers - 2 * net.layer_parameters + 6 * vocabulary)
    time = training_step(job(4), chip=CHIP, model=slow)
    assert time.data_s == pytest.approx(3 * sent / 1e9, rel=0.02)
    # Beside a micro-batch that computes for longer only the first and the last is waited for.
    wide = training_step(job(4, micro_batch=4096), chip=CHIP, model=slow)
    ends = 3 / 4 * 6 * (net.layer_parameters + vocabulary)
    assert wide.data_s == pytest.approx(3 * ends / 1e9, rel=0.02)
    assert training_step(job(1), chip=CHIP, model=slow).data_s == 0.0
    less = training_memory_bytes(job(4)) - training_memory_bytes(job(8))
    assert less == pytest.approx(16 * net.num_parameters / 8)


@given(m=st.integers(1, 9000), n=st.integers(1, 9000), k=st.integers(1, 9000))
@settings(deadline=None)
def test_a_product_is_never_faster_than_the_chip_and_fills_whole_waves(
    m: int, n: int, k: int
) -> None:
    seconds = product_s(m, n, k, chip=CHIP)
    free = product_s(m, n, k, chip=replace(CHIP, compute_units=None))
    assert seconds >= free >= 2.0 * m * n * k / CHIP.matrix_flops_per_s * 0.999999
    one_tile = 108 * 128 * 256 * 2.0 * k / CHIP.matrix_flops_per_s
    assert seconds >= one_tile * 0.999999
    assert product_s(m + 256 * 128, n, k, chip=CHIP) >= seconds


def test_a_wave_that_one_tile_opens_costs_as_much_as_a_full_one() -> None:
    rows, wide = 128 * 108, 256
    full = product_s(rows, wide, 4096, chip=CHIP)
    assert product_s(rows + 1, wide, 4096, chip=CHIP) == pytest.approx(2 * full)


def test_sizes_of_named_nets_are_those_of_their_publishers() -> None:
    assert NETS["llama3-8b"].num_parameters == pytest.approx(8.03e9, rel=0.001)
    assert NETS["llama3-70b"].num_parameters == pytest.approx(70.6e9, rel=0.002)
    assert NETS["llama2-7b"].num_parameters == pytest.approx(6.74e9, rel=0.001)
    assert NETS["gpt3-175b"].num_parameters == pytest.approx(174.6e9, rel=0.005)
    assert NETS["llama3-1b"].num_parameters == pytest.approx(1.236e9, rel=0.001)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("llama9", "is not one of llama3-1b"),
        ("gpt:h=64", "lacks layers, heads; write gpt:h=4096"),
        ("gpt:h=64,layers=2,heads=3", "64 is no multiple of 3 heads"),
        ("llama3-8b:kv=5", "32 heads are no multiple of 5 key heads"),
        ("llama3-8b:seq=0", "seq=0 is not a whole number from 1"),
        ("llama3-8b:depth=3", "'depth=3' is not key=value with one of h, layers"),
        ("llama3-8b:tied=maybe", "tied=maybe is not one of yes, no"),
    ],
)
def test_a_net_that_cannot_be_read_is_one_clear_line(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        parse_net(text)
    assert "\n" not in str(refused.value)


def test_published_trainings_are_where_the_page_says() -> None:
    found, sharded = [*megatron(), *flagperf(), *flagperf("h100-sxm-80g")], foundry()
    page = PAGE.read_text(encoding="utf-8")
    missing = [line for one in (*found, *sharded) if (line := table_line(one)) not in page]
    assert missing == [], "\n".join(missing)
    on_a100 = [one.projected / one.measured for one in sharded if "A100" in one.name]
    assert min(on_a100) > 1.0 and max(on_a100) < 1.2
    assert median(abs(one.projected / one.measured - 1) for one in found) < 0.09
    assert sum(one.is_inside for one in found) >= 0.8 * len(found)


def test_layouts_are_ranked_right_within_two_percent() -> None:
    for one, other in combinations(flagperf(), 2):
        if abs(one.measured / other.measured - 1) > 0.02:
            assert (one.measured > other.measured) == (one.projected > other.projected)


def test_memory_of_published_layouts_is_what_was_counted_and_what_programs_add() -> None:
    for one in flagperf():
        assert one.memory_gib is not None
        assert 0.65 < one.step.memory_bytes.mid / 2**30 / one.memory_gib < 1.1
    # PP1 DP8 TP1 ran out of memory.
    assert not replace(
        flagperf()[0].step,
        job=job_of(Layout(data=8, grad_accum=64)),
        memory_bytes=replace(
            flagperf()[0].step.memory_bytes,
            mid=training_memory_bytes(job_of(Layout(data=8, grad_accum=64))),
        ),
    ).fits
