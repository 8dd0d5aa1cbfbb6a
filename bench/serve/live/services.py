"""What serving takes, as a capacity is worked out from it: one request at a time, or in batches.

Measured before anybody waits, and known better once requests came by themselves: a server that
idles between them, with a client beside it and some minutes later, takes other times.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import fmean, median, pstdev
from typing import Protocol

from bench.core.batch_traffic import BatchTimes, BatchTraffic, ReplayedBatches, batch_capacity
from bench.core.traffic import (
    FEWEST,
    NUM_ARRIVALS,
    NUM_RUNS,
    Capacity,
    ReplayedTraffic,
    RequestKind,
    Traffic,
    capacity,
    rate_of_runs,
)
from bench.results.schema import Row
from bench.serve.batcher import BatchRule
from bench.serve.slo import Slo
from bench.serve.tally import OK, Served

ALL_SIZES = 8
"""Up to here batches of each size are measured, beyond it those that double."""
WANTED_BATCHES, WANTED_ROUNDS, FEWEST_ROUNDS = 700, 50, 2


class Services(Protocol):
    """Services that were measured, and the rate that follows from them."""

    @property
    def alone_s(self) -> Sequence[float]:
        """Times of requests that were served alone, in order."""

    @property
    def has_enough(self) -> bool:
        """Whether there are enough for an interval."""

    @property
    def known(self) -> str:
        """How many there are, of the kind of which there are fewest."""

    @property
    def longest_alone_s(self) -> float:
        """The most that a request takes for which nobody goes before."""

    def capacity(self, slo: Slo) -> Capacity:
        """Return the rate that holds these limits."""

    def live_rate(self, slo: Slo, *, below: float, seconds: float) -> float:
        """Return the largest rate, at most `below`, at which runs of so long mostly hold."""

    def as_met(self, served: Sequence[Served]) -> Services:
        """Return what they are by a run in which requests came by themselves."""


def service_columns(services: Services) -> Row:
    """Return what they are like."""
    times_s = services.alone_s
    return {"service_p50_ms": median(times_s) * 1e3, "service_cv": pstdev(times_s) / fmean(times_s)}


def batches_of(served: Sequence[Served]) -> list[Served]:
    """Return one request of each batch that was answered, in order."""
    answered = sorted((one for one in served if one.status == OK), key=lambda one: one.started_s)
    return list({one.started_s: one for one in answered}.values())


def _service_s(one: Served) -> float:
    return one.ended_s - one.started_s


@dataclass(frozen=True, kw_only=True)
class OneByOne:
    """Requests that are served one at a time."""

    alone_s: Sequence[float]

    @property
    def has_enough(self) -> bool:
        """Whether there are enough for an interval."""
        return self._kind.has_enough

    @property
    def known(self) -> str:
        """How many there are."""
        return f"{len(self.alone_s)} service times"

    @property
    def longest_alone_s(self) -> float:
        """The longest."""
        return max(self.alone_s)

    def capacity(self, slo: Slo) -> Capacity:
        """Return the rate that holds these limits."""
        return capacity(self._traffic(slo))

    def live_rate(self, slo: Slo, *, below: float, seconds: float) -> float:
        """Return the largest rate, at most `below`, at which runs of so long mostly hold."""
        traffic = self._traffic(slo)
        runs = [ReplayedTraffic(traffic, seed=one, resample=one) for one in range(NUM_RUNS)]
        return rate_of_runs(
            lambda place, rate: runs[place].run_holds(rate, lasts=seconds), below=below
        )

    def _traffic(self, slo: Slo) -> Traffic:
        assert slo.latency_s is not None, "checked when it was planned"
        return Traffic(kinds=(self._kind,), at=slo.at, limit=slo.latency_s)

    @property
    def _kind(self) -> RequestKind:
        return RequestKind(services=(tuple(self.alone_s),))

    def as_met(self, served: Sequence[Served]) -> OneByOne:
        """Return the services of the run itself."""
        return OneByOne(alone_s=list(map(_service_s, batches_of(served))))


@dataclass(frozen=True, kw_only=True)
class Batched:
    """Requests that are served together, where they are of one shape."""

    kinds: tuple[BatchTimes, ...]
    """One of each shape."""
    kind_of: tuple[int, ...]
    """Of each distinct request."""
    max_wait_s: float

    @property
    def alone_s(self) -> Sequence[float]:
        """Times of batches of one."""
        return [one for kind in self.kinds for one, *_ in kind.rounds]

    @property
    def has_enough(self) -> bool:
        """Whether there are enough for an interval."""
        return all(one.relative.has_enough for one in self.kinds)

    @property
    def known(self) -> str:
        """How many batches there are of the shape of which there are fewest."""
        return f"{min(one.relative.num for one in self.kinds)} batches of a shape"

    @property
    def longest_alone_s(self) -> float:
        """The longest, after it has waited for others."""
        return self.max_wait_s + max(self.alone_s)

    def capacity(self, slo: Slo) -> Capacity:
        """Return the rate that holds these limits."""
        return batch_capacity(self._traffic(slo))

    def live_rate(self, slo: Slo, *, below: float, seconds: float) -> float:
        """Return the largest rate, at most `below`, at which runs of so long mostly hold."""
        traffic, num = self._traffic(slo), min(NUM_ARRIVALS, math.ceil(1.2 * below * seconds))
        runs = [
            ReplayedBatches(traffic, seed=one, resample=one, num=num) for one in range(NUM_RUNS)
        ]
        return rate_of_runs(
            lambda place, rate: runs[place].run_holds(rate, lasts=seconds), below=below
        )

    def _traffic(self, slo: Slo) -> BatchTraffic:
        assert slo.latency_s is not None, "checked when it was planned"
        return BatchTraffic(
            kinds=self.kinds, max_wait=self.max_wait_s, at=slo.at, limit=slo.latency_s
        )

    def as_met(self, served: Sequence[Served]) -> Batched:
        """Return the same times, all slower by what the batches of the run were slower by."""
        expected = [kind.by_size() for kind in self.kinds]
        batches = batches_of(served)
        before_s = sum(
            expected[self.kind_of[one.sample or 0]][(one.batch or 1) - 1] for one in batches
        )
        slower = sum(map(_service_s, batches)) / before_s
        return replace(self, kinds=tuple(one.slowed(slower) for one in self.kinds))


class BatchServer(Protocol):
    """Serves distinct requests together when it is asked to."""

    @property
    def shapes(self) -> Sequence[Hashable]:
        """Of each distinct request; those of one shape go together."""

    def batch_s(self, requests: Sequence[int]) -> float:
        """Return how long these distinct requests take together."""


def batch_sizes(most: int) -> tuple[int, ...]:
    """Return the sizes of the batches that are measured."""
    doubled = {2**power for power in range(most.bit_length())}
    return tuple(sorted({*range(1, min(most, ALL_SIZES) + 1), *doubled, most}))


def timed_batches(
    server: BatchServer, *, rule: BatchRule, most_s: float, is_smoke: bool
) -> Batched:
    """Time batches of each size and shape in turn, so that what drifts meets all of them.

    Until there are enough, or so many seconds are over.
    """
    sizes = batch_sizes(rule.max_batch)
    shapes = list(dict.fromkeys(server.shapes))
    alike = [[place for place, one in enumerate(server.shapes) if one == shape] for shape in shapes]
    turns = [cycle(places) for places in alike]
    rounds: list[list[tuple[float, ...]]] = [[] for _ in shapes]
    spent_s, num = 0.0, 0
    each = math.ceil(FEWEST / len(sizes))  # an interval takes so many of every shape
    wanted = max(WANTED_ROUNDS, each, WANTED_BATCHES // (len(sizes) * len(shapes)))
    while num < FEWEST_ROUNDS or (not is_smoke and spent_s < most_s and num < wanted):
        for turn, found in zip(turns, rounds, strict=True):
            found.append(tuple(server.batch_s(list(islice(turn, size))) for size in sizes))
            spent_s += sum(found[-1])
        num += 1
    return Batched(
        kinds=tuple(
            BatchTimes(sizes=sizes, rounds=tuple(found), weight=len(places))
            for found, places in zip(rounds, alike, strict=True)
        ),
        kind_of=tuple(map(shapes.index, server.shapes)),
        max_wait_s=rule.max_wait_s,
    )
