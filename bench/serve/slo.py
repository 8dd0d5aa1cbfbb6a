"""What users are promised, and how sure it is that so many requests had it.

A request holds when each of its limits holds, from its scheduled arrival on. Late requests come in
bursts: a thousand of them may be worth ten independent ones, and an interval that takes each for
itself (binomial, early stopping) is far too narrow near the knee: it holds the truth in 10 to 50 of
100 runs. Here requests count for as many as they are worth, by the time over which latencies go
together (`tests/serve/test_slo.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Literal

from bench.core.errors import UsageError
from bench.core.statistics import autocorrelation_time
from bench.core.units import parse_duration_s, parse_percentile

FLAG = "--slo"
EXAMPLES = "2s@p99 or ttft=2s@p99,tpot=200ms@p99"
_DEVIATES = NormalDist().inv_cdf(0.975)
"""Standard deviations to each end of a 95 % interval."""

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
        duration, at, percentile = rest.partition("@")
        if not at:
            raise UsageError(
                f"{FLAG} {text!r}: {limit.strip()!r} has no percentile; write {EXAMPLES}"
            )
        if duration.strip().lower().startswith("p"):
            raise UsageError(f"{FLAG} {text!r}: the time comes first; write {EXAMPLES}")
        if name in limits:
            raise UsageError(f"{FLAG} {text!r} limits {name} twice")
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

    def verdict(self, at: float) -> Verdict:
        """Whether so large a part holds; undecided where the interval holds both."""
        if self.low >= at:
            return "holds"
        return "breaks" if self.high < at else "undecided"


def attainment(held: Sequence[bool], *, latencies_s: Sequence[float] = ()) -> Attainment:
    """Attainment of requests in their order of arrival; at least one.

    How long a burst lasts is better known from all latencies than from the few that are late: where
    hardly any was, their own series looks as if each came by itself.
    """
    series = [1.0 if one else 0.0 for one in held]
    times = max(autocorrelation_time(series), autocorrelation_time(latencies_s))
    return _wilson(fmean(series), num=len(series) / times)


def fewest_to_hold(at: float) -> int:
    """Independent requests, all in time, from which it is sure that so large a part is."""
    return math.ceil(_DEVIATES**2 * at / (1.0 - at))


def _wilson(frac: float, *, num: float) -> Attainment:
    """Wilson's interval of a part of so many independent requests, which need not be whole.

    Wilson, J. Am. Stat. Assoc. 22 (1927), https://doi.org/10.1080/01621459.1927.10502953
    """
    square = _DEVIATES**2 / num
    middle = frac + 0.5 * square
    half_width = math.sqrt(square * (frac * (1.0 - frac) + 0.25 * square))
    low, high = (middle + sign * half_width for sign in (-1.0, 1.0))
    return Attainment(
        frac=frac,
        low=max(0.0, min(low / (1.0 + square), frac)),
        high=min(1.0, max(high / (1.0 + square), frac)),
    )
