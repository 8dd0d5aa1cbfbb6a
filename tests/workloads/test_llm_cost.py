"""The formulas of the Llama against counts of its net, hand-worked cases and published sizes."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.core.nouns import Dtype
from tests.workloads.steps_of_workloads import (
    bytes_kept_for_backward,
    counted_flops,
    generated_batch,
)
from workloads._llm import llm_cost
from workloads._llm import llm_net as llama
from workloads.llm import Workload

TRAIN, PREFILL, DECODE = Workload.phases
TINY, LARGE = (Workload(**Workload.sizes[size]) for size in ("tiny", "large"))
GROUPED = replace(
    TINY, batch=2, layers=3, hidden=96, heads=6, kv_heads=3, intermediate=160, vocab=300,
    is_tied=False, sequence_tokens=48, prompt_tokens=40, new_tokens=5,
)  # fmt: skip


def test_named_sizes_are_as_large_as_they_say() -> None:
    assert Workload(**Workload.sizes["base"]).num_parameters() == pytest.approx(125e6, rel=0.02)
    # https://huggingface.co/meta-llama/Llama-3.2-1B: 1.23 B
    assert LARGE.num_parameters() == 1_235_814_400
    assert LARGE.memory_bytes(TRAIN, dtype="bf16") < 80e9  # trains on an 80 GB accelerator
    assert LARGE.memory_bytes(DECODE, dtype="bf16") < 12e9


@pytest.mark.parametrize("llm", [TINY, GROUPED])
def test_decode_flops_leave_out_the_padding_of_a_static_cache(llm: Workload) -> None:
    new, allocated = llm.new_tokens, llm.prompt_tokens + llm.new_tokens
    attended = sum(llm.prompt_tokens + index for index in range(1, new + 1))
    padding = llm.batch * 4 * llm.layers * llm.hidden * (new * allocated - attended)
    assert padding > 0
    by_formula = llm.flops_per_item(DECODE) * llm.items(DECODE, None)
    llm = replace(llm, cache="static")
    net = llm.build_net().train()
    with torch.no_grad():
        prompt = llm.prepare(DECODE, net, generated_batch(llm, DECODE))
        # A fused kernel would be counted by a rule of its own.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            llm.decode(net, prompt)
    assert counted_flops(counter) == by_formula + padding


def test_training_flops_of_large_are_six_for_each_parameter_and_attention() -> None:
    attention = 3 * 4 * LARGE.layers * LARGE.hidden * LARGE.sequence_tokens
    norms = (2 * LARGE.layers + 1) * LARGE.hidden
    assert LARGE.flops_per_item(TRAIN) == 6 * (LARGE.num_parameters() - norms) + attention


def test_least_traffic_of_a_hand_worked_model() -> None:
    llm = Workload(
        batch=2, layers=1, hidden=4, heads=2, kv_heads=1, intermediate=6, vocab=256, is_tied=False,
        sequence_tokens=8, prompt_tokens=10, new_tokens=3,
    )  # fmt: skip
    # Matrices 2*16 + 2*8 + 3*24 = 120, norms 3*4, head 1024; the untied embedding is not read.
    read, cache_entry = 120 + 12 + 1024, 2 * 2
    assert llm_cost.kv_bytes_per_token(llm, dtype_bytes=2) == cache_entry * 2
    prefill = llm.bytes_per_item(PREFILL, dtype_bytes=2)
    assert prefill == pytest.approx(read * 2 / 20 + cache_entry * 2)
    # Reads 10, 11, 12 entries and writes one.
    decode = llm.bytes_per_item(DECODE, dtype_bytes=2)
    assert decode == pytest.approx(read * 2 / 2 + (11 + 1) * cache_entry * 2)
    train = llm.bytes_per_item(TRAIN, dtype_bytes=2)
    assert train == pytest.approx((2 * read * 2 + 32 * (read + 1024)) / 16)


def test_decode_of_large_is_bound_by_memory_and_training_by_compute() -> None:
    train, prefill, decode = (
        LARGE.flops_per_item(phase) / LARGE.bytes_per_item(phase, dtype_bytes=2)
        for phase in Workload.phases
    )
    # The ridge of accelerators lies between 100 and 400 FLOP for each byte in 16 bits.
    assert decode < 20 and train > 500 and prefill > 500


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("llm", [replace(TINY, hidden=128, intermediate=352), GROUPED])
def test_activation_estimate_holds_what_autograd_saves(
    llm: Workload, dtype: Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped_kernel = llama.has_grouped_kernel
    monkeypatch.setattr(llama, "has_grouped_kernel", lambda value: grouped_kernel(value.to("meta")))
    saved = saved_bytes(replace(llm, layers=5), dtype=dtype)
    saved -= saved_bytes(replace(llm, layers=1), dtype=dtype)
    if dtype == "bf16":
        saved -= 4 * 2 * llm_cost.layer_matrix_parameters(llm)  # autocast's copies of weights
    tokens = llm.batch * llm.sequence_tokens
    estimate = 4 * tokens * llm_cost.layer_token_bytes(llm, dtype=dtype)
    assert estimate == pytest.approx(saved, rel=0.03)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_training_estimate_is_above_what_is_surely_held_but_not_by_half(dtype: Dtype) -> None:
    llm = replace(TINY, layers=6)
    held = 16 * llm.num_parameters() + saved_bytes(llm, dtype=dtype)
    assert held < llm.memory_bytes(TRAIN, dtype=dtype) < 1.5 * held


def saved_bytes(llm: Workload, *, dtype: Dtype) -> int:
    return bytes_kept_for_backward(llm, generated_batch(llm, TRAIN), dtype=dtype)


@pytest.mark.parametrize(("dtype", "width"), [("fp32", 4), ("tf32", 4), ("bf16", 2), ("fp16", 2)])
def test_inference_estimate_holds_weights_and_caches(dtype: Dtype, width: int) -> None:
    for values in Workload.sizes.values():
        llm = Workload(**values)
        weights = width * llm.num_parameters()
        tokens = llm.batch * (llm.prompt_tokens + llm.new_tokens)
        caches = 5 * tokens * llm_cost.kv_bytes_per_token(llm, dtype_bytes=width)
        train, prefill, decode = (llm.memory_bytes(one, dtype=dtype) for one in llm.phases)
        assert decode > weights + caches
        assert weights < prefill < decode
        assert train > 16 * llm.num_parameters()
