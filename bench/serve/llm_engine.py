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
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.serve.arrival_files import Arrival
from bench.serve.tally import LEFT, Served
from bench.workload import ServingPlan

if TYPE_CHECKING:
    from bench.serve.run_report import Report

PAGE_TOKENS = 256
"""Tokens of the cache that are given out together; the library's own default."""
KEPT_FREE_FRAC = 0.15
"""Of the cache: with less no prompt is begun; the library's own default, which goes unsaid."""
TICK_S = 0.2
"""Between two looks at how it goes."""


def cache_tokens_for(totals: Sequence[int], plan: ServingPlan) -> int:
    """Return what the cache needs so that requests of these lengths wait for passes, not for room.

    As many as are served at once, with the part that the engine keeps free, and the longest.
    """
    in_pages = PAGE_TOKENS / 2 + fmean(totals)
    return math.ceil(plan.max_requests * in_pages / (1.0 - KEPT_FREE_FRAC)) + max(totals)


@contextmanager
def serving(
    net: Any, plan: ServingPlan, *, cache_tokens: int, tensor: int = 1
) -> Iterator[TokenEngine]:
    """Serve a language model of the transformers library, in the dtype that its weights have.

    The cache holds so many tokens of prompts and answers; requests for which there is no room wait.
    Of a net that is cut over `tensor` devices it holds this rank's heads alone.
    """
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    settings = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=math.ceil(cache_tokens / PAGE_TOKENS),
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
        """Place in its schedule of each request that has not ended."""

    def serve(
        self,
        schedule: Sequence[Arrival],
        *,
        seed: str,
        last_s: float = math.inf,
        report: Report | None = None,
    ) -> list[Served]:
        """Send each request when it is due, and return what became of all, in their order.

        What has not ended at `last_s`, from the start of the run, is left.
        """
        prompts = [self._prompt(one, seed=f"{seed}/{at}") for at, one in enumerate(schedule)]
        found: dict[int, Served] = {}
        sent_s: list[float] = []
        start_s = time.perf_counter()

        def take(*, until_s: float, is_last: bool = False) -> None:
            for place, output in self._ended(until_s=start_s + until_s, is_last=is_last):
                if output is not None:
                    found[place] = served_of(schedule[place], output, start_s=start_s)
                if report is not None and output is not None:
                    report.ended(found[place])
                if report is not None:
                    report.look(time.perf_counter() - start_s)

        for place, one in enumerate(schedule):
            take(until_s=one.at_s)
            self._send(place, prompts[place], output_tokens=one.output_tokens or 1)
            sent_s.append(time.perf_counter() - start_s)
        take(until_s=last_s, is_last=True)
        self.drop()
        end_s = time.perf_counter() - start_s
        for place, one in enumerate(schedule):
            if place not in found:
                found[place] = left_of(one, sent_s=sent_s[place], end_s=end_s)
        return [found[place] for place in range(len(schedule))]

    def answers(self, prompts: Sequence[Sequence[int]], *, output_tokens: int) -> list[list[int]]:
        """Return what it answers to prompts that come together, so many tokens each."""
        for place, prompt in enumerate(prompts):
            self._send(place, list(prompt), output_tokens=output_tokens)
        ended = dict(self._ended(until_s=math.inf, is_last=True))
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

    def _ended(self, *, until_s: float, is_last: bool) -> Iterator[tuple[int, Any]]:
        """Yield what ends until then, by place in the schedule, and (-1, None) now and then.

        With `is_last` no longer than until nothing is open.
        """
        while (left_s := until_s - time.perf_counter()) > 0.0 and (self._open or not is_last):
            # Waiting here, and never spinning: the engine's thread needs the interpreter.
            output = self._manager.get_result(timeout=min(left_s, TICK_S))
            # What failed with the thread is handed out like answers.
            if (fatal := self._manager.background_thread_status.fatal_error) is not None:
                raise fatal
            place = -1 if output is None else self._open.pop(output.request_id, -1)
            yield place, output if place >= 0 else None


def served_of(asked: Arrival, output: Any, *, start_s: float) -> Served:
    """What became of a request, from the engine's stamps."""
    stamps = output.timestamps or []
    ended_s = (stamps[-1] if stamps else output.lifespan[1]) - start_s
    return Served(
        scheduled_s=asked.at_s,
        sent_s=output.created_time - start_s,
        started_s=output.lifespan[0] - start_s,
        ended_s=ended_s,
        status="ok" if output.error is None else "engine_error",
        first_token_s=stamps[0] - start_s if stamps else None,
        last_token_s=ended_s if stamps else None,
        tokens_asked=asked.output_tokens,
        tokens_sent=asked.prompt_tokens,
        tokens_got=len(output.generated_tokens),
    )


def left_of(asked: Arrival, *, sent_s: float, end_s: float) -> Served:
    """What became of a request that had not ended with the run."""
    return Served(
        scheduled_s=asked.at_s,
        sent_s=sent_s,
        started_s=end_s,
        ended_s=end_s,
        status=LEFT,
        tokens_asked=asked.output_tokens,
        tokens_sent=asked.prompt_tokens,
    )
