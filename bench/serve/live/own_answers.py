"""Does each request get its own answer? A short pass through the same batcher says so.

Each request is served alone first, then all at once, so that they share batches. An answer has to
be that of its own request up to rounding, nearer than to any other: a server that returns
somebody else's result is fast, and wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.measure.engine.correctness import TOLERANCE_FRAC
from bench.measure.engine.precision import float_tensors
from bench.measure.timing.validity import Problems
from bench.serve.arrival_files import Arrival
from bench.serve.batcher import BatchRule
from bench.serve.live.server import run_server
from bench.serve.live.serving_engine import ServingEngine

FEWEST, LONGEST_S = 2, 600.0
MOST_KEPT = 1_000_000
"""Elements of an answer that are compared."""


def answer_problems(engine: ServingEngine, *, rule: BatchRule) -> Problems:
    """Return what is wrong with the answers of requests that are served together."""
    num = min(engine.num_distinct, max(FEWEST, 2 * rule.max_batch))
    alone = served_alone(engine, num=num)
    found: dict[int, torch.Tensor | None] = {}

    def serve(places: Sequence[int]) -> None:
        output = engine.serve(places)
        found.update(zip(places, answers_of(engine, output, num=len(places)), strict=True))

    run_server(
        [Arrival(at_s=0.0)] * num,
        serve=serve,
        shapes=[engine.shape_of(one) for one in range(num)],
        rule=rule,
        last_s=LONGEST_S,
        clock=engine.clock,
    )
    return wrong_answers(found, alone, engine=engine)


def served_alone(engine: ServingEngine, *, num: int) -> list[torch.Tensor | None]:
    """Return the own answer of each of the first so many requests."""
    return [answers_of(engine, engine.serve([one]), num=1)[0] for one in range(num)]


def wrong_answers(
    found: Mapping[int, torch.Tensor | None],
    alone: Sequence[torch.Tensor | None],
    *,
    engine: ServingEngine,
) -> Problems:
    """Return the first answer among the found ones that is not its request's own."""
    tolerance = TOLERANCE_FRAC[engine.config.dtype]
    for place in range(len(alone)):
        if words := _wrong(place, found.get(place), alone, tolerance_frac=tolerance):
            return [("wrong_output", words)]
    return []


def answers_of(engine: ServingEngine, output: Any, *, num: int) -> list[torch.Tensor | None]:
    """Return the answer of each of so many requests in one output; None where it is not divided."""
    tensors = float_tensors(engine.workload.comparable(engine.phase, output))
    if not tensors or any(one.dim() == 0 or len(one) % num for one in tensors):
        return [None] * num
    parts = [one.detach().reshape(num, -1) for one in tensors]
    thinned = [one[:, :: -(-one.shape[1] // MOST_KEPT)].float().cpu().double() for one in parts]
    return list(torch.cat(thinned, dim=1))


def distance_frac(answer: torch.Tensor, own: torch.Tensor) -> float:
    """Return the distance of an answer from the request's own one, as a part of that."""
    return float((answer - own).norm()) / max(float(own.norm()), 1e-30)


def _wrong(
    place: int,
    answer: torch.Tensor | None,
    alone: Sequence[torch.Tensor | None],
    *,
    tolerance_frac: float,
) -> str:
    own = alone[place]
    if answer is None or own is None:
        return ""
    if answer.shape != own.shape:
        return f"request {place} has an answer of another shape than when it is served alone"
    distances = {
        other: float((answer - one).norm())
        for other, one in enumerate(alone)
        if one is not None and one.shape == answer.shape
    }
    nearest = min(distances, key=distances.__getitem__)
    if distances[nearest] < distances[place]:
        return f"request {place} has the answer of request {nearest}"
    error_frac = distance_frac(answer, own)
    if error_frac <= tolerance_frac:
        return ""
    words = f"request {place} differs by {error_frac:.2g} from when it is served alone"
    return f"{words}, tolerance {tolerance_frac:.2g}"
