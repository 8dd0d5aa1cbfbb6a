"""How many requests may come before too many wait too long, from service times that were measured.

Requests come at random, each by itself (Poisson). Measured services are drawn anew, replayed
through a queue, and the rate is halved in until the limit just holds; drawing other services and
other arrivals gives the interval. Live runs would take a hundred thousand requests for as much.
Left out: arrivals in bursts, and whatever a server adds to the service itself.

All times are in one unit, rates per that unit, and quantiles are fractions: 0.95, not 95.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import variance
from typing import TYPE_CHECKING

from bench.core.queueing import sojourn_times
from bench.core.statistics import autocorrelation_time

if TYPE_CHECKING:
    import numpy as np

    from bench.core.queueing import Floats

NUM_ARRIVALS = 50_000
"""Of one replay; several servers are replayed request by request, with a fifth of that."""
NUM_SEEDS = 8
NUM_RESAMPLES = 24
HALVINGS = 12
NUM_RUNS, _LESS, _LEAST_FRAC = 40, 0.985, 0.2
LONG = 4
"""Parts of the measured series that are replayed as they were, one after the other."""
FEWEST, FEWEST_UNEVEN, UNEVEN_CV = 200, 2_000, 0.7
"""Services that an interval takes, where they spread so much and where more."""
FEWEST_INDEPENDENT = 30
"""That they have to be worth, where slow ones follow one another."""
MOST_SERVERS = 4096


@dataclass(frozen=True, kw_only=True)
class RequestKind:
    """Requests of one kind: what each takes, and their part of all that come."""

    services: tuple[tuple[float, ...], ...]
    """Service times of each trial, in order."""
    weight: float = 1.0
    is_measured: bool = True
    """Else they are quantiles of an assumed law."""

    @property
    def num(self) -> int:
        """Services that are known."""
        return sum(map(len, self.services))

    @cached_property
    def mean(self) -> float:
        """Mean service."""
        return math.fsum(map(math.fsum, self.services)) / self.num

    @cached_property
    def cv2(self) -> float:
        """Variance over the squared mean."""
        squares = ((one / self.mean) ** 2 for series in self.services for one in series)
        return max(0.0, math.fsum(squares) / self.num - 1.0)

    @cached_property
    def num_independent(self) -> float:
        """Independent services that they are worth: slow ones may follow one another."""
        return sum(len(series) / autocorrelation_time(series) for series in self.services)

    @property
    def has_enough(self) -> bool:
        """Whether an interval can be drawn from so many."""
        if not self.is_measured or self.num < FEWEST:
            return False
        is_uneven = self.cv2 > UNEVEN_CV**2
        return self.num_independent >= (FEWEST_UNEVEN if is_uneven else FEWEST_INDEPENDENT)

    @property
    def block(self) -> int:
        """Services that are drawn together, so that slow ones still follow one another."""
        time = self.num / self.num_independent
        is_independent = not self.is_measured or time < 1.5
        return 1 if is_independent else min(math.ceil(3.0 * time), max(1, self.num // 10))


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What comes, what serves it, and how soon it must be done."""

    kinds: tuple[RequestKind, ...]
    servers: int = 1
    at: float = 0.95
    """Part of the requests of each kind that must be done within the limit."""
    limit: float = math.inf
    urgent_share: float = 0.0
    """Part of each kind that goes before the others."""
    urgent_limit: float = math.inf

    @property
    def weights(self) -> list[float]:
        """Part of all requests that is of each kind."""
        whole = sum(one.weight for one in self.kinds)
        return [one.weight / whole for one in self.kinds]

    @property
    def mean(self) -> float:
        """Mean service over all kinds."""
        return sum(w * one.mean for w, one in zip(self.weights, self.kinds, strict=True))

    @property
    def cv2(self) -> float:
        """Variance of the service over all kinds, over its squared mean."""
        pairs = zip(self.weights, self.kinds, strict=True)
        return sum(w * one.mean**2 * (1.0 + one.cv2) for w, one in pairs) / self.mean**2 - 1.0


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Largest rate at which every limit holds; 0 where a service alone takes too long."""

    rate: float
    utilisation: float | None = None
    """Part of the servers' time that is then used; None where it was not asked for."""
    parts: tuple[tuple[float, float], ...] = ()
    """(squared error of the rate's logarithm, degrees of freedom) of arrivals and of services; none
    where there are too few services to know."""


@dataclass(frozen=True, kw_only=True)
class Sojourns:
    """How soon requests of one kind are done, waiting and service together."""

    half: float
    """Half of those that are not urgent."""
    most: float
    """The part of them that the traffic's limit is for."""
    urgent_most: float | None
    """The same part of the urgent ones."""


class ReplayedTraffic:
    """Traffic as a series of requests; a seed gives the same requests at every rate."""

    def __init__(self, traffic: Traffic, *, seed: int, resample: int | None = None) -> None:
        import numpy as np

        random = np.random.default_rng(seed)
        again = None if resample is None else np.random.default_rng((seed, resample))
        num = NUM_ARRIVALS if traffic.servers == 1 else NUM_ARRIVALS // 5
        num = max(num, 20 * traffic.servers)
        self.traffic = traffic
        self.kinds = random.choice(len(traffic.kinds), size=num, p=traffic.weights)
        self.is_urgent = random.random(num) < traffic.urgent_share
        self._arrivals = np.cumsum(random.exponential(size=num))
        self._services = np.empty(num)
        for place, kind in enumerate(traffic.kinds):
            mine = np.flatnonzero(self.kinds == place)
            self._services[mine] = drawn(kind, len(mine), random=random, again=again)
        self._limits = np.where(self.is_urgent, traffic.urgent_limit, traffic.limit)
        self._cells = 2 * self.kinds + self.is_urgent
        self._may_be_late = (1.0 - traffic.at) * np.bincount(self._cells)

    def sojourns(self, rate: float, *, slower: float = 1.0) -> Floats:
        """Time from arrival to end of each request, if every service took so many times as long."""
        return sojourn_times(
            self._arrivals / rate,
            self._services * slower,
            servers=self.traffic.servers,
            is_urgent=self.is_urgent,
        )

    def holds(self, rate: float, *, slower: float = 1.0) -> bool:
        """Whether enough requests of every kind and class are done in time."""
        return self._are_in_time(self.sojourns(rate, slower=slower))

    def run_holds(self, rate: float, *, lasts: float) -> bool:
        """Whether the limit holds in a run of so long that begins with nobody; of one server."""
        import numpy as np

        num = max(1, int(np.searchsorted(self._arrivals, rate * lasts)))
        times = sojourn_times(self._arrivals[:num] / rate, self._services[:num])
        return bool(np.mean(times > self._limits[:num]) <= 1.0 - self.traffic.at)

    def are_short_enough(self, *, slower: float = 1.0) -> bool:
        """Whether requests that never wait are in time."""
        return self._are_in_time(self._services * slower)

    def _are_in_time(self, times: Floats) -> bool:
        import numpy as np

        late = np.bincount(self._cells[times > self._limits], minlength=len(self._may_be_late))
        return bool((late <= self._may_be_late).all())

    def capacity(self) -> float:
        """Largest rate that holds, by halving; 0 where requests that never wait are late."""
        if not self.are_short_enough():
            return 0.0
        low, high = 0.0, self.traffic.servers / self.traffic.mean
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.holds(middle) else (low, middle)
        return 0.5 * (low + high)


def drawn(
    kind: RequestKind,
    num: int,
    *,
    random: np.random.Generator,
    again: np.random.Generator | None = None,
) -> Floats:
    """So many services of a kind; `again` first draws as many anew as were measured."""
    import numpy as np

    def blocks(pool: Floats, size: int, source: np.random.Generator, *, length: int) -> Floats:
        starts = source.integers(len(pool), size=-(-size // length))
        places = (starts[:, None] + np.arange(length)).ravel()[:size]
        return pool.take(places, mode="wrap")

    pool = np.concatenate([np.asarray(series) for series in kind.services])
    if again is not None:
        pool = blocks(pool, len(pool), again, length=kind.block)
    if kind.block == 1:  # by size, so that one draw is alike in all resamples
        pool.sort()
    # Where they are cut, slow ones no longer follow one another, and queues would be shorter.
    length = kind.block if kind.block == 1 else max(kind.block, len(pool) // LONG)
    return blocks(pool, num, random, length=length)


@lru_cache(maxsize=4)
def _replays(traffic: Traffic, *, seed: int) -> tuple[ReplayedTraffic, ...]:
    return tuple(ReplayedTraffic(traffic, seed=seed + index) for index in range(NUM_SEEDS))


def capacity(traffic: Traffic, *, seed: int = 0) -> Capacity:
    """Largest rate at which every limit holds, from several series of arrivals.

    Its error is that of the arrivals, and that of the services, by drawing as many anew.
    """
    rates = [one.capacity() for one in _replays(traffic, seed=seed)]
    rate = math.fsum(rates) / NUM_SEEDS

    def again(place: int, resample: int) -> float:
        return ReplayedTraffic(traffic, seed=seed + place, resample=resample).capacity()

    return Capacity(
        rate=rate,
        utilisation=rate * traffic.mean / traffic.servers,
        parts=parts_of(rates, again=again, kinds=traffic.kinds),
    )


def parts_of(
    rates: Sequence[float], *, again: Callable[[int, int], float], kinds: Sequence[RequestKind]
) -> tuple[tuple[float, float], ...]:
    """Return a capacity's errors, of rates by so many seeds; none where they are not known.

    `again(place, resample)` is the rate by the seed at that place with services drawn anew.
    """
    if min(rates) <= 0.0 or not all(kind.has_enough for kind in kinds):
        return ()
    changes = []
    for index in range(NUM_RESAMPLES):
        place = index % NUM_SEEDS
        changes.append(again(place, index) / rates[place])
    if min(changes) <= 0.0:
        return ()
    arrivals = _variance_of_logs(rates) / NUM_SEEDS, NUM_SEEDS - 1.0
    # Few blocks do not know better than so many values how they spread.
    fewest = min(kind.num / kind.block for kind in kinds)
    services = _variance_of_logs(changes) * fewest / (fewest - 1.0)
    return arrivals, (services, min(NUM_RESAMPLES, fewest) - 1.0)


def rate_of_runs(run_holds: Callable[[int, float], bool], *, below: float) -> float:
    """Largest rate, at most `below`, at which 19 of 20 runs hold: `run_holds(place, rate)`.

    A run of a minute sees no more than its own arrivals: by luck too many of them come, and the
    limit breaks at a rate at which it holds in the long run.
    """

    def hold(rate: float) -> bool:
        left = NUM_RUNS // 20
        for place in range(NUM_RUNS):
            left -= not run_holds(place, rate)
            if left < 0:
                return False
        return True

    rate = below
    while rate > _LEAST_FRAC * below and not hold(rate):
        rate *= _LESS
    return rate


def _variance_of_logs(values: Sequence[float]) -> float:
    return variance([math.log(value) for value in values])


def sojourn_quantiles(
    traffic: Traffic, *, rate: float, slower: float = 1.0, seed: int = 0
) -> list[Sojourns] | None:
    """How soon requests of each kind are done; None where more comes than can be served."""
    import numpy as np

    if rate * traffic.mean * slower >= traffic.servers:
        return None
    replays = _replays(traffic, seed=seed)
    times = np.concatenate([one.sojourns(rate, slower=slower) for one in replays])
    kinds = np.concatenate([one.kinds for one in replays])
    is_urgent = np.concatenate([one.is_urgent for one in replays])

    def of_kind(place: int) -> Sojourns:
        routine = times[(kinds == place) & ~is_urgent]
        urgent = times[(kinds == place) & is_urgent]
        half, most = np.quantile(routine, (0.5, traffic.at))
        urgent_most = float(np.quantile(urgent, traffic.at)) if len(urgent) else None
        return Sojourns(half=float(half), most=float(most), urgent_most=urgent_most)

    return [of_kind(place) for place in range(len(traffic.kinds))]


def fewest_servers(
    traffic: Traffic, *, rate: float, slower: float = 1.0, seed: int = 0
) -> int | None:
    """Fewest servers that hold every limit at this rate; None where no number does."""
    if not _replays(traffic, seed=seed)[0].are_short_enough(slower=slower):
        return None

    def hold(servers: int) -> bool:
        several = replace(traffic, servers=servers)
        held = (one.holds(rate, slower=slower) for one in _replays(several, seed=seed))
        return 2 * sum(held) >= NUM_SEEDS

    least, step = math.floor(rate * traffic.mean * slower) + 1, 1
    while least + step <= MOST_SERVERS + 1 and not hold(least + step - 1):
        step *= 2
    if least + step > MOST_SERVERS + 1:
        return None
    return bisect_left(range(least + step), True, lo=least + step // 2, key=hold)
