"""When requests come: a law or a recording, drawn before the run as offsets from its start.

Nothing that the server does moves an arrival, and a drawn series is never stretched so that it
ends on time: its gaps would no longer be those of its law. Standard library and msgspec only.
Left out: users who wait for one answer before they send the next.
"""

import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

from bench.core.errors import UsageError, one_of
from bench.core.units import PERIOD_S, parse_frequency
from bench.serve.arrival_files import NUM_HOURS, Arrival, day_of, trace_of

FLAG = "--arrivals"
MOST_ARRIVALS = 10_000_000
LEAST_SHAPE, MOST_SHAPE = 0.01, 1000.0
EXAMPLE = "40/s"
_LAWS = ["poisson", "uniform", "gamma", "day", "trace", "auto"]
_RATE_BEFORE = re.compile(rf"\s*([^:]*/\s*(?:{'|'.join(PERIOD_S)})\s*):(.*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """How requests come, at a mean rate or at one still to be found."""

    law: str
    label: str
    """As it was given, files by name and digest; after `scaled_to` with the new rate."""
    rate_per_s: float | None
    """Mean over the run; None where it is to be found from the service times."""
    shape: float = 1.0
    """Of gamma: 1 / CV^2 of the gaps; under 1 requests come in bursts."""
    hours: tuple[float, ...] = ()
    """Of a day: weight of each hour."""
    recorded: tuple[Arrival, ...] = ()
    """Of a trace."""
    source: str = ""
    """Name and digest of the file of a day or a trace."""

    @property
    def busiest(self) -> float:
        """Rate in the busiest hour of a day over the mean rate; 1 without hours."""
        return max(self.hours) * NUM_HOURS / sum(self.hours) if self.hours else 1.0

    def busiest_s(self, seconds: float) -> float:
        """How much of so many seconds is in the busiest hours of a day; all without hours."""
        return seconds * self.hours.count(max(self.hours)) / NUM_HOURS if self.hours else seconds

    def is_busiest(self, at_s: float, *, seconds: float) -> bool:
        """Whether a moment of so many seconds is in one of them."""
        return not self.hours or self.hours[self._hour(at_s, seconds)] == max(self.hours)

    def _hour(self, at_s: float, seconds: float) -> int:
        return int(at_s / seconds * NUM_HOURS) % NUM_HOURS

    def lasts_s(self, seconds: float) -> float:
        """How long requests come where so long was asked: a trace is over after its last one."""
        own_s = len(self.recorded) / self.rate_per_s if self.recorded and self.rate_per_s else None
        return seconds if own_s is None else min(seconds, own_s)

    def check_number(self, *, seconds: float) -> None:
        """Refuse a rate that in so many seconds brings nobody, or more than can be kept."""
        expected = math.inf if self.rate_per_s is None else self.rate_per_s * seconds
        given = f"{FLAG} {self.label}: {expected:.3g} requests in {seconds:g} s"
        if expected < 1.0:
            raise UsageError(f"{given}; raise --seconds or the rate")
        if MOST_ARRIVALS < expected < math.inf:
            raise UsageError(f"{given} are over {MOST_ARRIVALS:,}")

    def scaled_to(self, rate_per_s: float) -> "Arrivals":
        """The same shape at another mean rate; a recording goes by faster or slower."""
        assert rate_per_s > 0.0, "no requests are no arrivals"
        slower = (self.rate_per_s or rate_per_s) / rate_per_s
        recorded = (replace(one, at_s=one.at_s * slower) for one in self.recorded)
        parts = [self.law, f"{rate_per_s:.6g}/s", self.source]
        if self.law == "gamma":
            parts.append(f"{self.shape:g}")
        label = ":".join(filter(None, parts))
        return replace(self, label=label, rate_per_s=rate_per_s, recorded=tuple(recorded))

    def draw(self, *, seconds: float, seed: int) -> list[Arrival]:
        """Every request that comes within so many seconds, in order; a day takes just as long."""
        if self.recorded:
            return [one for one in self.recorded if one.at_s < seconds]
        assert self.rate_per_s is not None, "a rate is found before anything is drawn"
        if self.rate_per_s * seconds > MOST_ARRIVALS:
            self.check_number(seconds=seconds)
        source = random.Random(f"{seed}/{self.law}")
        found = []
        for at_s in _times(self, seconds=seconds, source=source):
            if at_s >= seconds:
                break
            found.append(Arrival(at_s=at_s))
        return found


def _times(arrivals: Arrivals, *, seconds: float, source: random.Random) -> Iterator[float]:
    """Offsets without end."""
    rate, shape = arrivals.rate_per_s or 0.0, arrivals.shape
    match arrivals.law:
        case "uniform":
            yield from ((place + 0.5) / rate for place in count())
        case "gamma":
            yield from _summed(lambda: source.gammavariate(shape, 1.0 / (shape * rate)))
        case "day":
            # Thinning. Lewis and Shedler, Naval Research Logistics 26 (1979),
            # https://doi.org/10.1002/nav.3800260304
            peak, most = rate * arrivals.busiest, max(arrivals.hours)
            for at_s in _summed(lambda: source.expovariate(peak)):
                weight = arrivals.hours[arrivals._hour(at_s, seconds)]
                if at_s >= seconds or source.random() * most < weight:
                    yield at_s
        case _:
            yield from _summed(lambda: source.expovariate(rate))


def _summed(gap: Callable[[], float]) -> Iterator[float]:
    at_s = 0.0
    while True:
        at_s += gap()
        yield at_s


def parse_arrivals(text: str) -> Arrivals:
    """Read `poisson:40/s`, `uniform:R`, `gamma:R:SHAPE`, `day:FILE`, `trace:FILE` or `auto`.

    A day or a trace may be given at another mean rate: `day:800/day:FILE`. A day without one, and
    `auto`, leave the rate to be found.
    """
    law, _, rest = text.strip().partition(":")
    law = law.strip().lower()
    if law not in _LAWS:
        raise one_of(FLAG, law, _LAWS, hint=f"(such as poisson:{EXAMPLE})")
    if law in ("day", "trace"):
        return _from_file(law, rest)
    if law == "auto":
        if rest:
            raise UsageError(f"{FLAG} {text!r}: auto finds the rate; give auto alone")
        return Arrivals(law="poisson", label="auto", rate_per_s=None)
    rate, _, shape = rest.partition(":") if law == "gamma" else (rest, "", "")
    return Arrivals(
        law=law,
        label=f"{law}:{rest.strip()}",
        rate_per_s=_rate(rate, text=text),
        shape=_shape(shape, text=text) if law == "gamma" else 1.0,
    )


def _rate(rate: str, *, text: str) -> float:
    amount, period = parse_frequency(rate, what=f"{FLAG} {text!r}", example=EXAMPLE)
    return amount / PERIOD_S[period]


def _shape(shape: str, *, text: str) -> float:
    try:
        found = float(shape)
    except ValueError:
        found = 0.0
    if not LEAST_SHAPE <= found <= MOST_SHAPE:
        raise UsageError(
            f"{FLAG} {text!r} needs a shape from {LEAST_SHAPE:g} to {MOST_SHAPE:g} after the rate, "
            f"such as gamma:{EXAMPLE}:0.5 (1 is Poisson, less comes in bursts)"
        )
    return found


def _from_file(law: str, rest: str) -> Arrivals:
    match = _RATE_BEFORE.fullmatch(rest)
    name = match[2] if match else rest
    if not name.strip():
        raise UsageError(f"{FLAG} {law}: needs a file, such as {law}:FILE")
    if law == "day":
        hours, source = day_of(name, what=FLAG)
        found = Arrivals(
            law=law, label=f"day:{source}", rate_per_s=None, hours=hours, source=source
        )
    else:
        recorded, source = trace_of(name, what=FLAG)
        found = Arrivals(
            law=law,
            label=f"trace:{source}",
            rate_per_s=(len(recorded) - 1) / recorded[-1].at_s,
            recorded=recorded,
            source=source,
        )
    if match is None:
        return found
    scaled = found.scaled_to(_rate(match[1], text=f"{law}:{rest}"))
    return replace(scaled, label=f"{law}:{match[1].strip()}:{found.source}")


def equal_issue(num_samples: int, *, num: int, seed: int) -> list[int]:
    """Which sample each of `num` requests takes: all in random order before any comes again.

    As MLPerf asks of volumes of different sizes: else a rate over few of them is luck.
    """
    source = random.Random(f"{seed}/issue")
    rounds = -(-num // num_samples)
    return [one for _ in range(rounds) for one in source.sample(range(num_samples), num_samples)][
        :num
    ]
