"""How many requests may come where a server takes several at once, from what batches were measured
to take.

As `bench.core.traffic`, with the server's own rule: a full batch is served at once, any other when
its first request has waited long enough, and a batch holds requests of one kind. What a batch
takes is the mean of its size, times how far batches lie from their means, drawn in the order in
which they were measured. Left out: sizes that were not measured lie on a line between two that
were.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING

from bench.core.traffic import (
    HALVINGS,
    NUM_ARRIVALS,
    NUM_SEEDS,
    Capacity,
    RequestKind,
    drawn,
    parts_of,
)

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class BatchTimes:
    """What batches of requests of one kind take, and the part of all requests that is of it."""

    sizes: tuple[int, ...]
    """Rising, from 1 to the most."""
    rounds: tuple[tuple[float, ...], ...]
    """Times of one batch of each size, in the order measured."""
    weight: float = 1.0

    @cached_property
    def means(self) -> list[float]:
        """Mean time of each size."""
        return [fmean(series) for series in zip(*self.rounds, strict=True)]

    @cached_property
    def relative(self) -> RequestKind:
        """Times over the means of their sizes, in order."""
        parts = (map(_over, one, self.means) for one in self.rounds)
        return RequestKind(services=(tuple(chain.from_iterable(parts)),))

    def by_size(self, *, again: np.random.Generator | None = None) -> list[float]:
        """Mean time of a batch of 1, 2, ... requests; `again` first draws as many batches anew."""
        import numpy as np

        means = np.array(self.means)
        if again is not None:
            for place, series in enumerate(zip(*self.rounds, strict=True)):
                one = RequestKind(services=(series,))
                means[place] = drawn(one, len(series), random=again).mean()
        return list(np.interp(np.arange(1, self.sizes[-1] + 1), self.sizes, means))

    def slowed(self, slower: float) -> BatchTimes:
        """Return the same, each time so many times as long."""
        rounds = tuple(tuple(slower * value for value in one) for one in self.rounds)
        return replace(self, rounds=rounds)


def _over(value: float, mean: float) -> float:
    return value / mean


@dataclass(frozen=True, kw_only=True)
class BatchTraffic:
    """What comes to one server, how it puts requests together, and how soon they must be done."""

    kinds: tuple[BatchTimes, ...]
    max_wait: float
    """How long an incomplete batch waits, from its first request on."""
    at: float
    limit: float

    @property
    def max_batch(self) -> int:
        """Requests that are served together at most."""
        return self.kinds[0].sizes[-1]


def batched_sojourn_times(
    arrivals: Sequence[Sequence[float]],
    *,
    take: Callable[[int, int], float],
    max_batch: int,
    max_wait: float,
) -> list[list[float]]:
    """Time from arrival to end of each request of each kind, whose arrivals are in order.

    `take(kind, size)` is asked for what each batch takes, in their order. The rule is that of
    `bench.serve.batcher`.
    """
    heads = [0] * len(arrivals)
    found: list[list[float]] = [[] for _ in arrivals]
    is_open = [kind for kind, times in enumerate(arrivals) if times]
    now = 0.0
    while is_open:
        kind = min(is_open, key=lambda one: arrivals[one][heads[one]])
        start = arrivals[kind][heads[kind]] + max_wait
        if start > now:
            # Before the first has waited long enough, a batch that is full goes.
            for one in is_open:
                last = heads[one] + max_batch - 1
                if last < len(arrivals[one]) and arrivals[one][last] < start:
                    kind, start = one, arrivals[one][last]
        start = max(now, start)
        times, head = arrivals[kind], heads[kind]
        heads[kind] = bisect_right(times, start, head, min(len(times), head + max_batch))
        now = start + take(kind, heads[kind] - head)
        found[kind] += [now - came for came in times[head : heads[kind]]]
        if heads[kind] == len(times):
            is_open.remove(kind)
    return found


class ReplayedBatches:
    """Traffic as a series of requests; a seed gives the same requests at every rate."""

    def __init__(
        self,
        traffic: BatchTraffic,
        *,
        seed: int,
        resample: int | None = None,
        num: int = NUM_ARRIVALS // 5,
    ) -> None:
        import numpy as np

        random = np.random.default_rng(seed)
        again = None if resample is None else np.random.default_rng((seed, resample))
        weights = np.array([one.weight for one in traffic.kinds])
        kinds = random.choice(len(weights), size=num, p=weights / weights.sum())
        arrivals = np.cumsum(random.exponential(size=num))
        self._traffic, self._weights = traffic, weights / weights.sum()
        self._arrivals = [arrivals[kinds == place] for place in range(len(weights))]
        self._spread = [
            drawn(one.relative, num, random=random, again=again).tolist() for one in traffic.kinds
        ]
        self._means = [one.by_size(again=again) for one in traffic.kinds]

    def sojourns(self, rate: float, *, lasts: float = math.inf) -> list[list[float]]:
        """Time from arrival to end of each request of each kind that comes so long."""
        spreads = list(map(iter, self._spread))
        return batched_sojourn_times(
            [(one[one < rate * lasts] / rate).tolist() for one in self._arrivals],
            take=lambda kind, size: self._means[kind][size - 1] * next(spreads[kind]),
            max_batch=self._traffic.max_batch,
            max_wait=self._traffic.max_wait,
        )

    def run_holds(self, rate: float, *, lasts: float) -> bool:
        """Whether the limit holds in a run of so long that begins with nobody, all kinds as one."""
        times = [one for kind in self.sojourns(rate, lasts=lasts) for one in kind]
        late = sum(one > self._traffic.limit for one in times)
        return late <= (1.0 - self._traffic.at) * len(times)

    def capacity(self) -> float:
        """Largest rate that holds, by halving; 0 where requests that come alone are late."""
        import numpy as np

        waits = self._traffic.max_wait if self._traffic.max_batch > 1 else 0.0
        both = list(zip(self._means, self._spread, strict=True))
        if not self._are_in_time([[waits + means[0] * one for one in by] for means, by in both]):
            return 0.0
        # Per request, in batches of the best size.
        least = [min(mean / (n + 1) for n, mean in enumerate(means)) for means in self._means]
        low, high = 0.0, 1.0 / float(np.dot(self._weights, least))
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            holds = self._are_in_time(self.sojourns(middle))
            low, high = (middle, high) if holds else (low, middle)
        return 0.5 * (low + high)

    def _are_in_time(self, times: Sequence[Sequence[float]]) -> bool:
        limit, late = self._traffic.limit, 1.0 - self._traffic.at
        return all(sum(one > limit for one in kind) <= late * len(kind) for kind in times)


def batch_capacity(traffic: BatchTraffic, *, seed: int = 0) -> Capacity:
    """Largest rate at which the limit holds, with its errors, as `traffic.capacity`."""

    def found(place: int, resample: int | None = None) -> float:
        return ReplayedBatches(traffic, seed=seed + place, resample=resample).capacity()

    rates = [found(place) for place in range(NUM_SEEDS)]
    kinds = [one.relative for one in traffic.kinds]
    return Capacity(rate=fmean(rates), parts=parts_of(rates, again=found, kinds=kinds))
