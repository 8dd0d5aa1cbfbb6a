"""The Llama's formulas against what autograd saves, hand-worked cases and published sizes."""

from dataclasses import replace

import pytest

from bench.core.nouns import Dtype
from tests.workloads.steps_of_workloads import bytes_kept_for_backward, generated_batch
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
    # A training's estimate is above what is surely held, but not by half.
    monkeypatch.undo()
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
