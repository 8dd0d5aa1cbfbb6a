"""A language model on a device, laid out as its row says, behind an engine that batches as it goes.

Before anything is measured the engine answers prompts that come together, and its answers are held
to those of the phase's own method, which reads a batch by itself: an engine that mixes requests up
gives answers fast. The warm-up is steps of such batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from bench.core.errors import MeasurementError
from bench.measure.engine.engine import StepCount
from bench.measure.engine.torch_engine import TorchEngine
from bench.results.schema import Row
from bench.serve.llm_engine import TokenEngine, cache_tokens_for, serving

LEAST_EQUAL_FRAC = 0.5
"""Of the answers' first tokens in 16 bits, where rounding decides between two of equal rank."""


class LanguageEngine(TorchEngine):
    """Steps are batches of prompts, answered by the engine that serves; `close` ends it."""

    tokens: TokenEngine
    num_passes = 0
    """Through the net."""

    def open(self, totals: Sequence[int]) -> None:
        """Start the engine for requests of these lengths, and check what it answers."""
        plan = self.workload.serving_plan()
        if plan is None:
            raise MeasurementError(f"{self.config.name} has no serving_plan")
        batch, self._collated, _ = next(self._feed)
        self._step(batch)
        expected = self._step.last_output["ids"].tolist()  # type: ignore[union-attr]
        self._prompts, self._num_new = batch.tolist(), len(expected[0])
        own = [len(prompt) + self._num_new for prompt in self._prompts]
        cache_tokens = max(cache_tokens_for(some, plan) for some in (own, totals))
        module, tensor = self.laid_out.module, self.layout.tensor
        if self.link is not None:
            module.register_forward_pre_hook(self._count_pass)
        self._running = ExitStack()
        self.tokens = self._running.enter_context(
            serving(module, plan, cache_tokens=cache_tokens, tensor=tensor)
        )
        self.answers_problem = unequal(self._answers(), expected, is_half=self._half is not None)

    def _answers(self) -> list[list[int]]:
        return self.tokens.answers(self._prompts, output_tokens=self._num_new)

    def _count_pass(self, *_ignored: Any) -> None:
        self.num_passes += 1

    def begin_counting(self) -> None:
        """Count passes, and what a link carries, from here on."""
        self.num_passes = 0
        if self.link is not None:
            self.link.begin_counting()

    def link_columns(self) -> Row:
        """Return what a link carried in one pass, and blanks where there is none."""
        if self.link is None or not self.num_passes:
            return {}
        return {"overlap": self.overlap or None, **self.link.pass_columns(self.num_passes)}

    def step(self) -> StepCount:
        """Answer one batch of prompts that come together."""
        self._answers()
        return self._count(self._collated, 0.0)

    def close(self) -> None:
        """End the engine's thread."""
        self._running.close()


def unequal(
    answers: list[list[int]], expected: list[list[int]], *, is_half: bool
) -> tuple[str, str] | None:
    """Reason and words where the engine's answers are not those to each prompt by itself."""
    firsts = [one[0] == other[0] for one, other in zip(answers, expected, strict=True)]
    if answers == expected or (is_half and sum(firsts) >= LEAST_EQUAL_FRAC * len(firsts)):
        return None
    wrong = sum(one != other for one, other in zip(answers, expected, strict=True))
    return "wrong_output", f"{wrong} of {len(expected)} answers differ from those to a batch alone"
