"""The Llama and the text that it reads: what is predicted and seen, windows, and what it costs."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from bench.core.errors import DataError
from bench.core.nouns import DTYPE_BYTES, Dtype
from tests.workloads.steps_of_workloads import autocast, bytes_kept_for_backward, generated_batch
from tests.workloads.test_every_workload import UNTIED
from workloads._llm import llm_net as llama
from workloads._llm import text as texts
from workloads.llm import Workload

TRAIN, PREFILL, DECODE, SERVE = Workload.phases
TINY = Workload(**Workload.sizes["tiny"])
SHORT = replace(TINY, batch=3, new_tokens=5)
product = nn.functional.scaled_dot_product_attention


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool, Any]]:
    """Heads of the keys, whether they are grouped, and the mask, of each attention."""
    seen: list[tuple[int, bool, Any]] = []

    def noted(query: Any, key: Any, value: Any, **flags: Any) -> Any:
        seen.append((key.shape[1], flags.get("enable_gqa", False), flags.get("attn_mask")))
        return product(query, key, value, **flags)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", noted)
    return seen


def choose_as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = llama.has_grouped_kernel
    monkeypatch.setattr(llama, "has_grouped_kernel", lambda value: chosen(value.to("meta")))


def make_net() -> Any:
    torch.manual_seed(0)
    return SHORT.build_net().eval()


@torch.inference_mode()
def decoded(llm: Workload, net: Any, *, seed: int = 0) -> dict[str, torch.Tensor]:
    return llm.decode(net, llm.prepare(DECODE, net, generated_batch(SHORT, DECODE, seed=seed)))


def test_training_predicts_every_token_after_the_first_and_sees_none_before_its_time() -> None:
    net, batch = make_net(), generated_batch(TINY, TRAIN)[:2]
    assert TINY.items(TRAIN, batch) == 2 * 64
    with torch.no_grad():
        loss = TINY.loss(net, batch)
        log_p = net(input_ids=batch).logits.log_softmax(-1)
        changed = batch.clone()
        changed[0, 40] = 7
        after = net(input_ids=changed, use_cache=False).logits.log_softmax(-1)
    picked = [float(log_p[b, t, batch[b, t + 1]]) for b in range(2) for t in range(64)]
    assert float(loss) == pytest.approx(-sum(picked) / len(picked), rel=1e-5)
    assert torch.equal(log_p[0, :40], after[0, :40])
    assert not torch.allclose(log_p[0, 40:], after[0, 40:])


def test_heads_stay_grouped_only_where_a_kernel_takes_them_so(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, ids = make_net(), generated_batch(SHORT, TRAIN)
    expected = SHORT.loss(net, ids).item()
    choose_as_on_an_accelerator(monkeypatch)
    for dtype, heads, is_grouped in [("fp32", TINY.heads, False), ("bf16", TINY.kv_heads, True)]:
        calls.clear()
        with autocast(dtype):
            loss = SHORT.loss(net, ids)
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=0.02 if is_grouped else 1e-5)
        assert calls == [(heads, is_grouped, None)] * TINY.layers


def test_weight_decay_spares_the_norms() -> None:
    net = TINY.build_net()
    decayed, spared = TINY.optimizer(net).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert len(spared["params"]) == 2 * TINY.layers + 1
    assert sum(p.numel() for g in (decayed, spared) for p in g["params"]) == TINY.num_parameters()


@pytest.mark.parametrize("cache", ["static", "dynamic", "auto"])
@torch.inference_mode()
def test_every_step_gives_what_recomputing_gives(cache: str, calls: list[Any]) -> None:
    net, llm = make_net(), replace(SHORT, cache=cache)
    ids, logits = generated_batch(SHORT, DECODE), []
    prompt = llm.prepare(DECODE, net, ids)
    assert {mask for *_, mask in calls} == {None}
    before = [layer.keys.data_ptr() for layer in prompt.cache.layers]
    outputs = [llm.decode(net, prompt) for _ in range(3)]
    assert (calls[-1][2] is None) == (cache != "static"), "an eager CPU has no use of a fixed one"
    for _ in range(SHORT.new_tokens):  # everything anew for every token
        logits.append(net(input_ids=ids, use_cache=False).logits[:, -1])
        ids = torch.cat([ids, logits[-1].argmax(-1, keepdim=True)], dim=1)
    for output in outputs:
        assert torch.equal(output["ids"], ids[:, -SHORT.new_tokens :])
        torch.testing.assert_close(llm.comparable(DECODE, output), logits[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output["logits"], logits[-1], rtol=1e-4, atol=1e-5)
    # The padding of a fixed cache is no work.
    assert llm.flops_per_item(DECODE) == SHORT.flops_per_item(DECODE)
    num_tokens = SHORT.prompt_tokens + SHORT.new_tokens
    assert {int(layer.get_seq_length()) for layer in prompt.cache.layers} == {num_tokens}
    if cache == "static":  # written in place
        assert [layer.keys.data_ptr() for layer in prompt.cache.layers] == before


@pytest.mark.parametrize("cache", ["static", "dynamic"])
@pytest.mark.parametrize("is_cast", [True, False])
def test_16_bit_decode_keeps_a_16_bit_cache_and_agrees_with_fp32(cache: str, is_cast: bool) -> None:
    llm, net = replace(SHORT, cache=cache), make_net()
    expected, frequencies = decoded(llm, net)["first_logits"], net.model.rotary_emb.inv_freq.clone()
    net = net.to(torch.bfloat16) if is_cast else net
    with torch.inference_mode(), autocast("bf16"):
        prompt = llm.prepare(DECODE, net, generated_batch(SHORT, DECODE))
        actual = llm.decode(net, prompt)["first_logits"].float()
    layer = prompt.cache.layers[0]
    assert layer.keys.dtype == layer.values.dtype == torch.bfloat16
    assert float((actual - expected).norm() / expected.norm()) < 0.02
    # Casting leaves the rotary frequencies as they were.
    assert net.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(net.model.rotary_emb.inv_freq, frequencies)


def test_each_phase_is_one_compiled_graph_for_all_prompts_and_positions() -> None:
    def count() -> int:
        assert not counters["graph_break"]
        return counters["stats"]["unique_graphs"]

    expected = decoded(replace(SHORT, cache="static"), make_net())
    in_place = make_net()
    in_place.compile(backend="eager")
    for compiled in (torch.compile(make_net(), backend="eager"), in_place):
        torch._dynamo.reset()
        counters.clear()
        actual = decoded(SHORT, compiled)
        decoded(SHORT, compiled, seed=1)
        assert count() == 1 and torch.equal(actual["ids"], expected["ids"])
    torch._dynamo.reset()
    counters.clear()
    with torch.inference_mode():
        growing = replace(SHORT, cache="dynamic")
        assert growing.prepare(DECODE, compiled, generated_batch(SHORT, DECODE)).masks[0] is None
        SHORT.prefill(compiled, generated_batch(SHORT, PREFILL))
    assert count() == 1
    SHORT.loss(compiled, generated_batch(SHORT, TRAIN)).backward()
    assert count() == 2


def test_generated_text_is_stationary_and_depends_on_seed_and_index_only() -> None:
    stationary = texts.stationary_distribution()
    assert stationary.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(stationary @ texts.transition_matrix(), stationary, atol=1e-12)
    first, again, other = (texts.MarkovWindows(length=40, seed=seed) for seed in (5, 5, 6))
    assert first[3].dtype == torch.int64 and first[3].shape == (40,)
    assert torch.equal(first[12], again[12])
    assert torch.equal(first[12], pickle.loads(pickle.dumps(first))[12])
    assert not torch.equal(first[12], first[13]) and not torch.equal(first[12], other[12])
    assert torch.equal(first[-1], first[len(first) - 1])
    with pytest.raises(IndexError):
        first[len(first)]


def test_windows_tile_a_long_file_in_seed_order_and_overlap_in_a_short_one(tmp_path: Path) -> None:
    def windows(content: bytes, *, length: int, seed: int = 0) -> list[bytes]:
        path = tmp_path / "text.txt"
        path.write_bytes(content)
        read = texts.FileWindows(path, length=length, seed=seed)
        return [bytes(window.tolist()) for window in read]

    text = bytes(np.random.default_rng(0).integers(32, 127, size=300 * 50, dtype=np.uint8))
    first, again, other = (windows(text, length=50, seed=seed) for seed in (1, 1, 2))
    assert len(first) == 300 and set(first) == {text[i : i + 50] for i in range(0, 15_000, 50)}
    assert first == again != other
    for size, expected in [(20, 1), (29, 10), (20 + 255 * 3, 256)]:
        assert [len(one) for one in windows(text[:size], length=20)] == [20] * expected
    words = "Ünïcødé – ≈ 3 µs".encode()
    assert windows(words, length=len(words)) == [words]


def test_an_unusable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    for name, content, problem in [
        ("good", b"x" * 72, None),
        ("empty", b"", "is empty"),
        ("short", b"x" * 71, "has 71 bytes; this size needs 72 or more"),
        ("nul", b"a\0b" * 100, "holds NUL bytes"),
        ("none", None, "does not exist"),
        ("folder", None, "is a folder"),
        ("good", None, "cannot be read: Permission denied"),
    ]:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        if problem is None:  # it fills a batch with different windows
            TINY.check_data(path)
            assert len(TINY.dataset(TRAIN, data=path, seed=0)) == TINY.batch
            continue
        if name == "good":
            error = PermissionError(13, "Permission denied")
            monkeypatch.setattr(Path, "open", Mock(side_effect=error))
        with pytest.raises(DataError, match=f"{path} {problem}") as caught:
            TINY.check_data(path)
        assert "\n" not in str(caught.value)


def test_named_sizes_are_as_large_as_they_say() -> None:
    assert Workload(**Workload.sizes["base"]).num_parameters() == pytest.approx(125e6, rel=0.02)
    large = Workload(**Workload.sizes["large"])
    # https://huggingface.co/meta-llama/Llama-3.2-1B: 1.23 B
    assert large.num_parameters() == 1_235_814_400
    assert large.memory_bytes(TRAIN, dtype="bf16") < 80e9  # trains on an 80 GB accelerator
    assert large.memory_bytes(DECODE, dtype="bf16") < 12e9
    assert [phase.latency for phase in Workload.phases] == [None, "ttft", "tpot", None]


def test_least_traffic_of_a_hand_worked_model() -> None:
    llm = Workload(
        batch=2, layers=1, hidden=4, heads=2, kv_heads=1, intermediate=6, vocab=256, is_tied=False,
        sequence_tokens=8, prompt_tokens=10, new_tokens=3,
    )  # fmt: skip
    # Matrices 2*16 + 2*8 + 3*24 = 120, norms 3*4, head 1024; the untied embedding is not read.
    read, cache_entry = 120 + 12 + 1024, 2 * 2
    assert llm.kv_bytes_per_token(dtype_bytes=2) == cache_entry * 2
    prefill = llm.bytes_per_item(PREFILL, dtype_bytes=2)
    assert prefill == pytest.approx(read * 2 / 20 + cache_entry * 2)
    # Reads 10, 11, 12 entries and writes one.
    decode = llm.bytes_per_item(DECODE, dtype_bytes=2)
    assert decode == pytest.approx(read * 2 / 2 + (11 + 1) * cache_entry * 2)
    train = llm.bytes_per_item(TRAIN, dtype_bytes=2)
    assert train == pytest.approx((2 * read * 2 + 32 * (read + 1024)) / 16)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("llm", [replace(TINY, hidden=128, intermediate=352), UNTIED])
def test_activation_estimate_holds_what_autograd_saves(
    llm: Workload, dtype: Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_as_on_an_accelerator(monkeypatch)

    def saved_bytes(llm: Workload) -> int:
        return bytes_kept_for_backward(llm, generated_batch(llm, TRAIN), dtype=dtype)

    saved = saved_bytes(replace(llm, layers=5)) - saved_bytes(replace(llm, layers=1))
    if dtype == "bf16":
        saved -= 4 * 2 * llm.layer_matrix_parameters()  # autocast's copies of weights
    tokens = llm.batch * llm.sequence_tokens
    estimate = 4 * tokens * llm.layer_token_bytes(dtype=dtype)
    assert estimate == pytest.approx(saved, rel=0.03)
    # A training's estimate is above what is surely held, but not by half.
    llm = replace(TINY, layers=6)
    held = 16 * llm.num_parameters() + saved_bytes(llm)
    assert held < llm.memory_bytes(TRAIN, dtype=dtype) < 1.5 * held


@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16", "fp16"])
def test_inference_estimate_holds_weights_and_caches(dtype: Dtype) -> None:
    width = DTYPE_BYTES[dtype]
    for values in Workload.sizes.values():
        llm = Workload(**values)
        weights = width * llm.num_parameters()
        tokens = llm.batch * (llm.prompt_tokens + llm.new_tokens)
        caches = 5 * tokens * llm.kv_bytes_per_token(dtype_bytes=width)
        train, prefill, decode, serve = (llm.memory_bytes(one, dtype=dtype) for one in llm.phases)
        assert weights < prefill < decode > weights + caches
        assert serve > weights + caches / 5 / llm.batch * llm.max_requests
        assert train > 16 * llm.num_parameters()
