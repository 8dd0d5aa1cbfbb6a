from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.workloads.steps_of_workloads import generated_batch
from workloads.llm import Workload

_, PREFILL, DECODE = Workload.phases
TINY = Workload(**{**Workload.sizes["tiny"], "batch": 3, "new_tokens": 5})


def make_net() -> Any:
    torch.manual_seed(0)
    return TINY.build_net().eval()


@torch.inference_mode()
def decoded(llm: Workload, net: Any, *, seed: int = 0) -> dict[str, torch.Tensor]:
    return llm.decode(net, llm.prepare(DECODE, net, generated_batch(TINY, DECODE, seed=seed)))


@torch.inference_mode()
def without_cache(net: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Generated ids, first and last logits, with everything computed anew for every token."""
    ids, logits = generated_batch(TINY, DECODE), []
    for _ in range(TINY.new_tokens):
        logits.append(net(input_ids=ids, use_cache=False).logits[:, -1])
        ids = torch.cat([ids, logits[-1].argmax(-1, keepdim=True)], dim=1)
    return ids[:, TINY.prompt_tokens + 1 :], logits[0], logits[-1]


@pytest.mark.parametrize("cache", ["static", "dynamic"])
@torch.inference_mode()
def test_every_step_gives_what_recomputing_everything_gives(cache: str) -> None:
    net, llm = make_net(), replace(TINY, cache=cache)
    prompt = llm.prepare(DECODE, net, generated_batch(TINY, DECODE))
    before = [layer.keys.data_ptr() for layer in prompt.cache.layers]
    outputs = [llm.decode(net, prompt) for _ in range(3)]
    ids, first, last = without_cache(net)
    for output in outputs:
        assert output["ids"].shape == (TINY.batch, TINY.new_tokens)
        assert torch.equal(output["ids"], ids)
        torch.testing.assert_close(llm.comparable(DECODE, output), first, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output["logits"], last, rtol=1e-4, atol=1e-5)
        assert all(torch.equal(output[name], outputs[0][name]) for name in output)
    num_tokens = TINY.prompt_tokens + TINY.new_tokens
    assert {int(layer.get_seq_length()) for layer in prompt.cache.layers} == {num_tokens}
    if cache == "static":  # written in place
        assert [layer.keys.data_ptr() for layer in prompt.cache.layers] == before
        assert prompt.cache.layers[0].keys.shape[2] == num_tokens


@torch.inference_mode()
def test_auto_grows_the_cache_on_an_eager_cpu_and_fixes_it_when_compiled() -> None:
    def is_fixed(net: Any, llm: Workload = TINY) -> bool:
        return llm.prepare(DECODE, net, generated_batch(TINY, DECODE)).masks[0] is not None

    net = make_net()
    assert not is_fixed(net)
    assert is_fixed(torch.compile(net, backend="eager"))
    net.compile(backend="eager")
    assert is_fixed(net)
    assert not is_fixed(net, replace(TINY, cache="dynamic"))


@pytest.mark.parametrize("cache", ["static", "dynamic"])
@pytest.mark.parametrize("is_cast", [True, False])
def test_16_bit_decode_keeps_a_16_bit_cache_and_agrees_with_fp32(cache: str, is_cast: bool) -> None:
    llm, net = replace(TINY, cache=cache), make_net()
    expected = decoded(llm, net)["first_logits"]
    net = net.to(torch.bfloat16) if is_cast else net
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        prompt = llm.prepare(DECODE, net, generated_batch(TINY, DECODE))
        actual = llm.decode(net, prompt)["first_logits"].float()
    layer = prompt.cache.layers[0]
    assert layer.keys.dtype == layer.values.dtype == torch.bfloat16
    assert float((actual - expected).norm() / expected.norm()) < 0.02


def test_casting_the_net_keeps_rotary_frequencies_in_fp32() -> None:
    net = make_net()
    before = net.model.rotary_emb.inv_freq.clone()
    after = net.to(torch.bfloat16).model.rotary_emb.inv_freq
    assert after.dtype == torch.float32
    assert torch.equal(before, after)
    assert net.model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16


@pytest.fixture
def compiled() -> Any:
    torch._dynamo.reset()
    counters.clear()
    return torch.compile(make_net(), backend="eager")


def test_compiled_decode_is_one_graph_for_all_prompts_and_positions(compiled: Any) -> None:
    expected = decoded(replace(TINY, cache="static"), make_net())
    actual = decoded(TINY, compiled)
    decoded(TINY, compiled, seed=1)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert torch.equal(actual["ids"], expected["ids"])


def test_compiled_prefill_and_training_are_one_graph_each_without_a_mask(compiled: Any) -> None:
    with torch.inference_mode():
        TINY.prefill(compiled, generated_batch(TINY, PREFILL))
    assert counters["stats"]["unique_graphs"] == 1
    TINY.loss(compiled, generated_batch(TINY, Workload.phases[0])).backward()
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


@pytest.mark.parametrize("phase", Workload.phases)
def test_attention_gets_no_mask_but_for_a_fixed_cache(
    phase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        masks.append(kwargs.get("attn_mask"))
        return plain(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    net, batch = make_net(), generated_batch(TINY, phase)
    if phase.is_training:
        TINY.loss(net, batch)
    else:
        with torch.no_grad():
            getattr(TINY, phase.name)(net, TINY.prepare(phase, net, batch))
    assert masks
    assert all(mask is None for mask in masks)
