from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.workloads.steps_of_workloads import generated_batch
from workloads._llm.decode import Prompt
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
def without_cache(net: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Generated ids and last logits, with everything computed anew for every token."""
    ids = generated_batch(TINY, DECODE)
    for _ in range(TINY.new_tokens):
        logits = net(input_ids=ids, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids[:, TINY.prompt_tokens + 1 :], logits


@pytest.mark.parametrize("cache", ["static", "dynamic"])
def test_decode_gives_what_recomputing_everything_gives(cache: str) -> None:
    net = make_net()
    output = decoded(replace(TINY, cache=cache), net)
    ids, logits = without_cache(net)
    assert output["ids"].shape == (TINY.batch, TINY.new_tokens)
    assert torch.equal(output["ids"], ids)
    torch.testing.assert_close(output["logits"], logits, rtol=1e-4, atol=1e-5)


def test_first_logits_follow_the_prompt_and_its_last_token() -> None:
    net = make_net()
    with torch.inference_mode():
        expected = net(input_ids=generated_batch(TINY, DECODE), use_cache=False).logits[:, -1]
    actual = TINY.comparable(DECODE, decoded(TINY, net))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cache", ["static", "dynamic"])
@torch.inference_mode()
def test_every_step_starts_from_the_same_context(cache: str) -> None:
    net, llm = make_net(), replace(TINY, cache=cache)
    prompt = llm.prepare(DECODE, net, generated_batch(TINY, DECODE))
    outputs = [llm.decode(net, prompt) for _ in range(3)]
    for output in outputs[1:]:
        for name, tensor in outputs[0].items():
            assert torch.equal(tensor, output[name])
    lengths = {int(layer.get_seq_length()) for layer in prompt.cache.layers}
    assert lengths == {TINY.prompt_tokens + TINY.new_tokens}


@torch.inference_mode()
def test_a_fixed_cache_is_written_in_place() -> None:
    net, llm = make_net(), replace(TINY, cache="static")
    prompt = llm.prepare(DECODE, net, generated_batch(TINY, DECODE))
    before = [layer.keys.data_ptr() for layer in prompt.cache.layers]
    llm.decode(net, prompt)
    assert [layer.keys.data_ptr() for layer in prompt.cache.layers] == before
    assert prompt.cache.layers[0].keys.shape[2] == TINY.prompt_tokens + TINY.new_tokens


def is_fixed(prompt: Prompt) -> bool:
    return prompt.masks[0] is not None


@torch.inference_mode()
def test_auto_grows_the_cache_on_an_eager_cpu_and_fixes_it_when_compiled() -> None:
    net, batch = make_net(), generated_batch(TINY, DECODE)
    assert not is_fixed(TINY.prepare(DECODE, net, batch))
    assert is_fixed(TINY.prepare(DECODE, torch.compile(net, backend="eager"), batch))
    net.compile(backend="eager")
    assert is_fixed(TINY.prepare(DECODE, net, batch))
    assert not is_fixed(replace(TINY, cache="dynamic").prepare(DECODE, net, batch))


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


def test_compiled_decode_is_one_graph_for_all_prompts_and_positions() -> None:
    net = make_net()
    expected = decoded(replace(TINY, cache="static"), net)
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(net, backend="eager")
    actual = decoded(TINY, compiled)
    decoded(TINY, compiled, seed=1)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert torch.equal(actual["ids"], expected["ids"])


def test_compiled_prefill_and_training_are_one_graph_each_without_a_mask() -> None:
    net = make_net()
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(net, backend="eager")
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
