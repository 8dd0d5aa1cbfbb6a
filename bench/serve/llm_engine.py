"""Requests of tokens served by the continuous batching of transformers, in this process.

The one file that touches it, since it changes often: a test holds the names it uses. Requests are
added one by one when they are due (added together they would be sorted), and share no beginnings:
repeated prompts would be free. All times are the engine's own stamps: whoever takes tokens out in
the same process sees them tens of milliseconds late. It attends by sdpa, also where flash kernels
are, so that rows of two machines mean the same; it is no stand-in for a server that has them.

A net cut over several devices is served by this rank's part, its link being emulated: other ranks
that are real would each need the same requests in the same step.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.serve.arrival_files import Arrival
from bench.serve.tally import Served
from bench.workload import ServingPlan

PAGE_TOKENS = 256
"""Tokens of the cache that are given out together; the library's own default."""
_POLL_S = 1.0


@contextmanager
def serving(
    net: Any, plan: ServingPlan, *, longest_tokens: int, tensor: int = 1
) -> Iterator[TokenEngine]:
    """Serve a language model of the transformers library, in the dtype that its weights have.

    The cache holds `plan.max_requests` requests of `longest_tokens`, prompt and answer together.
    Of a net that is cut over `tensor` devices it holds this rank's heads alone.
    """
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    settings = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=plan.max_requests * math.ceil(longest_tokens / PAGE_TOKENS),
        max_batch_tokens=plan.max_batch_tokens,
        max_requests_per_batch=plan.max_requests,
        use_cuda_graph=plan.use_cuda_graph,
        use_async_batching=False,
        allow_block_sharing=False,
        auto_switch_to_flash=False,
    )
    net.config.num_key_value_heads //= tensor
    net.set_attn_implementation("sdpa")
    started = net.continuous_batching_context_manager(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1),
        continuous_batching_config=settings,
    )
    with started as manager:
        engine = TokenEngine(manager, vocabulary=net.config.vocab_size)
        try:
            yield engine
        finally:
            engine.drop()


def engine_label() -> str:
    """What serves, with its version."""
    import transformers

    return f"transformers-cb {transformers.__version__}"


class TokenEngine:
    """A running engine; requests are numbered through all that it serves."""

    def __init__(self, manager: Any, *, vocabulary: int) -> None:
        self._manager = manager
        self._vocabulary = vocabulary
        self._num_sent = 0
        self._open: dict[str, int] = {}
        """Place in the schedule of each request that has not ended."""

    def serve(
        self, schedule: Sequence[Arrival], *, seed: str, longest_wait_s: float = math.inf
    ) -> list[Served]:
        """Send each request when it is due, and return what became of all.

        What has not ended so long after the last one was sent is given up: status `left`.
        """
        prompts = [self._prompt(one, seed=f"{seed}/{at}") for at, one in enumerate(schedule)]
        start_s = time.perf_counter()
        sent_s: list[float] = []
        for place, one in enumerate(schedule):
            # Never spinning: the engine's thread needs the interpreter.
            time.sleep(max(0.0, start_s + one.at_s - time.perf_counter()))
            self._send(place, prompts[place], output_tokens=one.output_tokens or 1)
            sent_s.append(time.perf_counter() - start_s)
        ended = self._collect(until_s=time.perf_counter() + longest_wait_s)
        return [
            served_of(one, ended.get(place), place=place, start_s=start_s, sent_s=sent_s[place])
            for place, one in enumerate(schedule)
        ]

    def answers(self, prompts: Sequence[Sequence[int]], *, output_tokens: int) -> list[list[int]]:
        """Return what it answers to prompts that come together, so many tokens each."""
        for place, prompt in enumerate(prompts):
            self._send(place, list(prompt), output_tokens=output_tokens)
        ended = self._collect(until_s=math.inf)
        return [list(ended[place].generated_tokens) for place in range(len(prompts))]

    def drop(self) -> None:
        """Give up what has not ended, so that stopping waits for nothing."""
        for name in self._open:
            self._manager.cancel_request(name)
        self._open = {}

    def _prompt(self, arrival: Arrival, *, seed: str) -> list[int]:
        return random.Random(seed).choices(range(self._vocabulary), k=arrival.prompt_tokens or 1)

    def _send(self, place: int, prompt: list[int], *, output_tokens: int) -> None:
        name = str(self._num_sent)
        self._num_sent += 1
        self._open[name] = place
        self._manager.add_request(
            prompt, request_id=name, max_new_tokens=output_tokens, record_timestamps=True
        )

    def _collect(self, *, until_s: float) -> dict[int, Any]:
        """Wait for all that is open, or until then; by place in the schedule."""
        ended: dict[int, Any] = {}
        while self._open and (left_s := until_s - time.perf_counter()) > 0.0:
            output = self._manager.get_result(timeout=min(left_s, _POLL_S))
            if output is not None:
                # Of a request that was given up before, there is no place.
                if (place := self._open.pop(output.request_id, None)) is not None:
                    ended[place] = output
            elif not self._manager.is_running():
                break
        # The thread hands out what failed with it as answers, each with the words of the error.
        if (fatal := self._manager.background_thread_status.fatal_error) is not None:
            raise fatal
        self.drop()
        return ended


def served_of(asked: Arrival, output: Any, *, place: int, start_s: float, sent_s: float) -> Served:
    """What became of a request, from the engine's stamps; `output` None: it was given up."""
    known: dict[str, Any] = {
        "scheduled_s": asked.at_s,
        "batch": place,
        "tokens_asked": asked.output_tokens,
        "tokens_sent": asked.prompt_tokens,
    }
    if output is None or output.error is not None:
        now_s = time.perf_counter() - start_s
        known["status"] = "left" if output is None else "engine_error"
        return Served(sent_s=sent_s, started_s=now_s, ended_s=now_s, **known)
    return Served(
        sent_s=output.created_time - start_s,
        started_s=output.lifespan[0] - start_s,
        ended_s=output.timestamps[-1] - start_s,
        first_token_s=output.timestamps[0] - start_s,
        last_token_s=output.timestamps[-1] - start_s,
        tokens_got=len(output.generated_tokens),
        **known,
    )
