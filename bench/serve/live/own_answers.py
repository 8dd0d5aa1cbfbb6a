"""Does each request get its own answer? A short pass through the same batcher says so.

Each request is served alone first, then all at once, so that they share batches. An answer has to
be that of its own request up to rounding, nearer than to any other: a server that returns
somebody else's result is fast, and wrong. What a segmentation marks is held against eager fp32 too.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch

from bench.measure.engine.correctness import TOLERANCE_FRAC
from bench.measure.engine.precision import float_tensors
from bench.measure.timing.validity import Problems
from bench.serve.arrival_files import Arrival
from bench.serve.batcher import BatchRule
from bench.serve.live.marked_voxels import mask_of, mask_problems
from bench.serve.live.server import run_server
from bench.serve.live.serving_engine import ServingEngine

FEWEST, LONGEST_S = 2, 600.0
MOST_KEPT = 1_000_000
"""Elements of an answer that are compared."""


class OwnAnswers:
    """What these requests are answered, each alone and then together."""

    def __init__(self, engine: ServingEngine, *, requests: Sequence[int]) -> None:
        self._engine = engine
        self._alone = {one: _answers_of(engine, engine.serve([one]), num=1)[0] for one in requests}
        self._found: dict[int, torch.Tensor | None] = {}
        self._masks: dict[int, torch.Tensor] = {}

    def serve(self, requests: Sequence[int]) -> None:
        """Serve these requests together, and keep what each is answered."""
        engine, num = self._engine, len(requests)
        output = engine.serve(requests)
        self._found.update(zip(requests, _answers_of(engine, output, num=num), strict=True))
        mask = mask_of(engine, output)
        if mask is not None and mask.dim() and len(mask) % num == 0:
            self._masks.update(zip(requests, mask.cpu().chunk(num), strict=True))

    def distance_frac(self, request: int) -> float | None:
        """Return how far its answer is from the one that it gets alone, as a part of that."""
        answer, own = self._found.get(request), self._alone[request]
        if answer is None or own is None or answer.shape != own.shape:
            return None
        return float((answer - own).norm()) / max(float(own.norm()), 1e-30)

    def problems(self) -> Problems:
        """Return the first answer that is wrong, or what Dice the masks have.

        The last use of the engine: it computes in fp32 from there on.
        """
        words = map(self._wrong, self._alone)
        wrong: Problems = [("wrong_output", one) for one in words if one][:1]
        return wrong or mask_problems(self._engine, self._masks)

    def _wrong(self, place: int) -> str:
        answer, own = self._found.get(place), self._alone[place]
        if answer is None or own is None:
            return ""
        error_frac = self.distance_frac(place)
        if error_frac is None:
            return f"request {place} has an answer of another shape than when it is served alone"
        distances = _distances(answer, self._alone)
        nearest = min(distances, key=distances.__getitem__)
        if distances[nearest] < distances[place]:
            return f"request {place} has the answer of request {nearest}"
        tolerance_frac = TOLERANCE_FRAC[self._engine.config.dtype]
        if error_frac <= tolerance_frac:
            return ""
        words = f"request {place} differs by {error_frac:.2g} from when it is served alone"
        return f"{words}, tolerance {tolerance_frac:.2g}"


def answered_together(engine: ServingEngine, *, rule: BatchRule) -> OwnAnswers:
    """Let some requests come at once to a server with this rule."""
    shapes = [engine.shape_of(one) for one in range(engine.num_distinct)]
    asked = most_alike(shapes)[: max(FEWEST, 2 * rule.max_batch)]
    answers = OwnAnswers(engine, requests=asked)
    run_server(
        [Arrival(at_s=0.0)] * len(asked),
        serve=lambda places: answers.serve([asked[place] for place in places]),
        shapes=[shapes[one] for one in asked],
        rule=rule,
        last_s=LONGEST_S,
        clock=engine.clock,
    )
    return answers


def most_alike(shapes: Sequence[Hashable]) -> list[int]:
    """Return the places of these requests, first those that most others can share a batch with."""
    return sorted(
        range(len(shapes)), key=lambda one: (-shapes.count(shapes[one]), shapes.index(shapes[one]))
    )


def _answers_of(engine: ServingEngine, output: Any, *, num: int) -> list[torch.Tensor | None]:
    """Return the answer of each of so many requests in one output; None where it is not divided."""
    tensors = float_tensors(engine.workload.comparable(engine.phase, output))
    if not tensors or any(one.dim() == 0 or len(one) % num for one in tensors):
        return [None] * num
    parts = [one.detach().reshape(num, -1) for one in tensors]
    thinned = [one[:, :: -(-one.shape[1] // MOST_KEPT)].float().cpu().double() for one in parts]
    return list(torch.cat(thinned, dim=1))


def _distances(answer: torch.Tensor, alone: Mapping[int, torch.Tensor | None]) -> dict[int, float]:
    return {
        other: float((answer - one).norm())
        for other, one in alone.items()
        if one is not None and one.shape == answer.shape
    }
