"""The serving engine in this process: its answers, its times, and the names it takes from outside.

`transformers` changes its continuous batching often; where a name is gone this file says which.
"""

import inspect
from collections.abc import Iterator
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import discovery
from bench.core.nouns import Layout
from bench.emulate.group import start_emulation
from bench.hardware.costs.cost import model_of
from bench.parallel.laid_out import lay_out
from bench.serve.arrival_files import Arrival
from bench.serve.llm_engine import TokenEngine, engine_label, served_of, serving
from workloads.llm import SERVE

LLM: Any = discovery.instance(discovery.load("llm"), size="tiny", overrides={"batch": 4})
CACHE = 8192


def net_of() -> Any:
    torch.manual_seed(0)
    return LLM.build_net().eval()


@pytest.fixture(scope="module")
def engine() -> Iterator[TokenEngine]:
    with serving(net_of(), LLM.serving_plan(), cache_tokens=CACHE) as running:
        yield running


def every(gap_s: float, num: int, *, tokens: int = 6) -> list[Arrival]:
    return [
        Arrival(at_s=place * gap_s, prompt_tokens=10 + place, output_tokens=tokens)
        for place in range(num)
    ]


def test_the_names_that_are_taken_from_transformers_are_there() -> None:
    """A change over there is read here, not in the traceback of a thread."""
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig
    from transformers.generation.continuous_batching import continuous_api, requests

    manager, output = continuous_api.ContinuousBatchingManager, requests.GenerationOutput
    parameters = inspect.signature(manager.add_request).parameters
    asked = {
        "ContinuousBatchingConfig": (
            {one.name for one in fields(ContinuousBatchingConfig)},
            "page_size num_blocks max_batch_tokens max_requests_per_batch use_cuda_graph "
            "use_async_batching allow_block_sharing auto_switch_to_flash",
        ),
        "GenerationOutput": (
            {one.name for one in fields(output)},
            "request_id generated_tokens error created_time lifespan timestamps",
        ),
        "ContinuousBatchingManager.add_request": (
            set(parameters),
            "input_ids request_id max_new_tokens record_timestamps",
        ),
        "ContinuousBatchingManager": (set(dir(manager)), "get_result cancel_request is_running"),
        "BackgroundThreadStatus": (
            set(vars(continuous_api.BackgroundThreadStatus())),
            "fatal_error",
        ),
        "LlamaForCausalLM": (
            set(dir(net_of())),
            "continuous_batching_context_manager set_attn_implementation",
        ),
    }
    gone = [
        f"{kind} has no {name} any more: bench/serve/llm_engine.py uses it"
        for kind, (has, names) in asked.items()
        for name in names.split()
        if name not in has
    ]
    assert gone == []
    assert GenerationConfig(do_sample=False, eos_token_id=-1).eos_token_id == -1
    assert engine_label().startswith("transformers-cb 5.")


def test_answers_to_requests_that_come_together_are_those_to_each_batch(
    engine: TokenEngine,
) -> None:
    windows = LLM.dataset(SERVE, data=None, seed=3)
    batch = torch.stack([windows[index] for index in range(LLM.batch)])
    with torch.inference_mode():
        expected = LLM.serve(net_of(), batch)["ids"].tolist()
    assert engine.answers(batch.tolist(), output_tokens=LLM.new_tokens) == expected


def test_requests_are_sent_when_due_and_each_has_its_tokens_and_times(engine: TokenEngine) -> None:
    schedule = every(0.02, 12)
    served = engine.serve(schedule, seed="0")
    assert [one.scheduled_s for one in served] == [one.at_s for one in schedule]
    for asked, one in zip(schedule, served, strict=True):
        assert one.status == "ok" and one.tokens_got == one.tokens_asked == 6
        assert one.tokens_sent == asked.prompt_tokens
        assert one.first_token_s is not None and one.last_token_s is not None
        times = (one.scheduled_s, one.sent_s, one.started_s, one.first_token_s, one.last_token_s)
        assert list(times) == sorted(times) and one.ended_s == one.last_token_s


def test_what_has_not_ended_is_given_up_and_later_requests_are_served(engine: TokenEngine) -> None:
    left = engine.serve(every(0.0, 3, tokens=500), seed="0", last_s=0.01)
    assert [one.status for one in left] == ["left"] * 3
    assert all(one.tokens_got is None and one.latency_s > 0.0 for one in left)
    assert [one.status for one in engine.serve(every(0.0, 2), seed="1")] == ["ok"] * 2


def _without_kernel(**_: Any) -> None:
    raise RuntimeError("no kernel")


def test_what_the_engine_fails_with_is_raised() -> None:
    net = net_of()
    with serving(net, LLM.serving_plan(), cache_tokens=CACHE) as running:
        net.forward = _without_kernel
        with pytest.raises(RuntimeError, match="no kernel"):
            running.serve(every(0.0, 2), seed="0")


def test_times_are_the_engines_stamps_whenever_somebody_looks() -> None:
    output = SimpleNamespace(
        error=None,
        created_time=101.0,
        lifespan=(101.25, 999.0),
        timestamps=[101.5, 101.75, 102.0],
        generated_tokens=[1, 2, 3],
    )
    asked = Arrival(at_s=0.5, prompt_tokens=8, output_tokens=3)
    one = served_of(asked, output, start_s=100.0)
    assert (one.sent_s, one.started_s, one.first_token_s, one.ended_s) == (1.0, 1.25, 1.5, 2.0)


def test_a_net_cut_over_a_modelled_link_is_served_and_waits_for_the_link() -> None:
    layout = Layout(strategy="tp", tensor=2, link="wan-metro", mode="emulated")
    device = torch.device("cpu")
    emulation = start_emulation(num_ranks=2, model=model_of(layout.link), device=device)
    try:
        net, kind = net_of(), {"layout": layout, "device": device, "dtype": "fp32"}
        lay_out(net, workload=LLM, phase=SERVE, **kind)
        plan = LLM.serving_plan()
        with serving(net, plan, cache_tokens=CACHE, tensor=2) as running:
            served = running.serve(every(0.0, 2), seed="0")
    finally:
        emulation.close()
    assert [one.tokens_got for one in served] == [6, 6]
    hops_s = 2e-3 * LLM.layers  # two all-reduces a layer, each at least a hop of 1 ms
    assert all(one.last_token_s - one.first_token_s > 5 * hops_s for one in served)  # type: ignore[operator]
