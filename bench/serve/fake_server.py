"""A server in simulated time: a schedule, a law of service times and a rule of batches in, what
became of each request out.

One server takes batches in turn, as the real one does; hours of it take a second. A law gives the
seconds that a batch of so many requests takes.
"""

import math
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import repeat

from bench.serve.arrival_files import Arrival
from bench.serve.batcher import BatchRule
from bench.serve.tally import Served

Law = Callable[[int], float]


def constant(service_s: float) -> Law:
    """The same time whatever is in the batch."""
    return lambda num: service_s


def batched(first_s: float, each_s: float) -> Law:
    """So long for a batch, and so much for each request in it."""
    return lambda num: first_s + each_s * num


def exponential(mean_s: float, *, seed: int) -> Law:
    """As uneven as times between arrivals at random."""
    source = random.Random(seed)
    return lambda num: source.expovariate(1.0 / mean_s)


def lognormal(mean_s: float, *, cv: float, seed: int) -> Law:
    """With a standard deviation of `cv` means."""
    source, square = random.Random(seed), math.log1p(cv**2)
    return lambda num: mean_s * source.lognormvariate(-0.5 * square, math.sqrt(square))


@dataclass(frozen=True, slots=True)
class _Coming:
    came_s: float
    shape: Hashable


def serve(
    arrivals: Sequence[Arrival],
    *,
    law: Law,
    rule: BatchRule | None = None,
    shapes: Sequence[Hashable] = (),
) -> list[Served]:
    """Serve every request, by default one by one; in the order of the schedule."""
    rule = rule or BatchRule()
    times = [one.at_s for one in arrivals]
    coming = list(map(_Coming, times, shapes or repeat(None)))
    waiting: list[_Coming] = []
    places: list[int] = []
    found: dict[int, Served] = {}
    now_s, following = 0.0, 0
    while len(found) < len(coming):
        while following < len(coming) and times[following] <= now_s:
            waiting.append(coming[following])
            places.append(following)
            following += 1
        batch = rule.decide(waiting, now_s=now_s)
        if isinstance(batch, float):
            now_s = min([batch, *times[following : following + 1]])
            continue
        started_s, now_s = now_s, now_s + law(len(batch))
        for place in reversed(batch):
            request, number = waiting.pop(place), places.pop(place)
            found[number] = Served(
                scheduled_s=request.came_s,
                sent_s=request.came_s,
                started_s=started_s,
                ended_s=now_s,
                batch=len(batch),
            )
    return [found[number] for number in range(len(coming))]
