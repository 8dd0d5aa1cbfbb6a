"""What users are promised, and how sure it is that so many requests had it.

A request holds when each of its limits holds, from its scheduled arrival on. Late requests come in
bursts: a thousand of them may be worth ten independent ones, and an interval that takes each for
itself (binomial, Wilson's, early stopping) is far too narrow near the knee. Here it is drawn from
batches that are longer than the bursts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import Literal

from bench.core.errors import UsageError
from bench.core.statistics import autocorrelation_time, batch_means, t_quantile
from bench.core.units import parse_duration_s, parse_percentile

FLAG = "--slo"
EXAMPLES = "2s@p99 or ttft=2s@p99,tpot=200ms@p99"
FEWEST_BATCHES, MOST_BATCHES = 20, 32
_TAIL = 0.025
"""Beyond each end of a 95 % interval."""

Verdict = Literal["holds", "breaks", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Slo:
    """Limits that a request holds together; None where there is no limit."""

    label: str
    at: float
    """Part of all requests that have to hold every limit."""
    latency_s: float | None = None
    """From scheduled arrival to the last byte."""
    ttft_s: float | None = None
    """From scheduled arrival to the first token."""
    tpot_s: float | None = None
    """Between tokens of one request, its mean."""


def parse_slo(text: str) -> Slo:
    """Read `2s@p99` or `ttft=2s@p99,tpot=200ms@p99`; `UsageError` for what cannot be meant."""
    limits: dict[str, float] = {}
    parts = set()
    for limit in text.split(","):
        name, equals, rest = limit.rpartition("=")
        name = name.strip().lower() if equals else "latency"
        if name not in ("latency", "ttft", "tpot"):
            raise UsageError(
                f"{FLAG} {text!r}: {name!r} is not latency, ttft or tpot; write {EXAMPLES}"
            )
        if name in limits:
            raise UsageError(f"{FLAG} {text!r} limits {name} twice")
        duration, at, percentile = rest.partition("@")
        if not at:
            raise UsageError(
                f"{FLAG} {text!r}: {limit.strip()!r} has no percentile; write {EXAMPLES}"
            )
        limits[name] = parse_duration_s(duration, what=FLAG, is_over_0=True)
        parts.add(parse_percentile(percentile, what=FLAG))
    if len(parts) > 1:
        raise UsageError(
            f"{FLAG} {text!r}: a request holds all limits or none: give them one percentile"
        )
    return Slo(
        label=text.strip(),
        at=parts.pop(),
        latency_s=limits.get("latency"),
        ttft_s=limits.get("ttft"),
        tpot_s=limits.get("tpot"),
    )


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """Part of the requests that held every limit, with its 95 % interval."""

    frac: float
    low: float
    high: float
    """0 and 1 where the requests are too few to know anything."""

    def verdict(self, at: float) -> Verdict:
        """Whether so large a part holds; undecided where the interval holds both."""
        if self.low >= at:
            return "holds"
        return "breaks" if self.high < at else "undecided"


def attainment(held: Sequence[bool]) -> Attainment:
    """Attainment of requests in their order of arrival; at least one."""
    late = [0.0 if one else 1.0 for one in held]
    frac = 1.0 - fmean(late)
    if autocorrelation_time(late) <= 1.0:
        return _wilson(frac, num=len(late), times=NormalDist().inv_cdf(1.0 - _TAIL))
    means = batch_means(late, fewest=FEWEST_BATCHES, most=MOST_BATCHES)
    if means is None:
        return Attainment(frac=frac, low=0.0, high=1.0)
    num_independent = frac * (1.0 - frac) * len(means) / variance(means)
    times = t_quantile(1.0 - _TAIL, len(means) - 1)
    return _wilson(frac, num=min(num_independent, len(late)), times=times)


def _wilson(frac: float, *, num: float, times: float) -> Attainment:
    """Wilson's interval of a part of so many independent requests, which need not be whole.

    Wilson, J. Am. Stat. Assoc. 22 (1927), https://doi.org/10.1080/01621459.1927.10502953
    """
    square = times**2
    middle = frac + square / (2.0 * num)
    half_width = times * math.sqrt(frac * (1.0 - frac) / num + square / (4.0 * num**2))
    low, high = ((one / (1.0 + square / num)) for one in (middle - half_width, middle + half_width))
    return Attainment(frac=frac, low=min(max(0.0, low), frac), high=max(min(1.0, high), frac))
