"""The largest rate that holds the limits: service times, a replay of the queue, two live runs.

Services are measured in a closed loop, as steps are; the queue is replayed with them
(`bench.core.traffic`). Finding the rate by live runs would take a hundred thousand requests, so
those only check: one at the lower end of the interval, which should hold, and one 15 % over the
upper end, which should not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev
from typing import Any

from bench.core.log_estimate import LogEstimate
from bench.core.traffic import Capacity, RequestKind, Traffic, capacity
from bench.core.units import format_duration, format_number
from bench.measure.engine.engine import Engine
from bench.measure.timing.limits import Limits
from bench.measure.timing.validity import INVALIDATING, Problems
from bench.measure.timing.window import Window, measured_enough, run_window
from bench.results.schema import Row
from bench.serve.arrivals import Arrivals
from bench.serve.columns import Tally
from bench.serve.slo import Slo

WANTED_SERVICES = 700
"""From so many the rate is within 5 % in the median, where each is worth one: docs/serving.md."""
OVER = 1.15
"""Of the upper end, where the limits should no longer hold."""
LEAST_LATE = 10
"""Requests that may be late in a live run: with fewer it decides nothing."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What was found, and the services that it rests on."""

    row: Row
    problems: Problems
    services_s: list[float]


def closed_loop(engine: Engine, *, limits: Limits, most_s: float, step_s: float) -> Window:
    """Time requests one after the other: as many as an interval takes, in so many seconds."""
    enough = measured_enough(limits)

    def should_stop(elapsed_s: float, done_s: list[float]) -> bool:
        has_all = elapsed_s >= most_s or limits.is_smoke
        if not has_all and len(done_s) >= WANTED_SERVICES:  # slow ones may follow one another
            has_all = RequestKind(services=(tuple(done_s),)).has_enough
        return has_all and enough(elapsed_s, done_s)

    return run_window(engine, should_stop=should_stop, expected_step_s=step_s, ends_round=True)


def search(
    services_s: Sequence[float],
    *,
    slo: Slo,
    arrivals: Arrivals,
    seconds: float,
    live: Callable[[Arrivals], Tally],
) -> Searched:
    """Find the rate from these services and check it by live runs of so many seconds."""
    row, (low, high) = by_replay(services_s, slo=slo)
    if why := _why_not(services_s, rate=low, slo=slo, seconds=seconds):
        verdict, problems, words = "predicted", [], why
    else:
        tally, verdict, words = _checked(low, OVER * high, slo=slo, arrivals=arrivals, live=live)
        row = tally.row | row
        problems = [one for one in tally.problems if one[0] != "short_run"]
    row["capacity_is"] = verdict
    if "capacity_low_per_s" not in row and low > 0.0:
        words = f"{len(services_s)} service times are too few for an interval; {words}"
    code = "" if verdict in ("confirmed", "low_only") else "capacity_not_confirmed"
    return Searched(row=row, problems=[*problems, (code, words)], services_s=list(services_s))


def by_replay(services_s: Sequence[float], *, slo: Slo) -> tuple[Row, tuple[float, float]]:
    """Return the columns of the capacity and its ends, without an interval twice the same."""
    assert slo.latency_s is not None, "checked when it was planned"
    kind = RequestKind(services=(tuple(services_s),))
    found = capacity(Traffic(kinds=(kind,), at=slo.at, limit=slo.latency_s))
    row: Row = {
        "service_p50_ms": median(services_s) * 1e3,
        "service_cv": pstdev(services_s) / fmean(services_s),
        "capacity_per_s": found.rate,
    }
    ends = _ends(found)
    if ends is not None:
        row |= {"capacity_low_per_s": ends[0], "capacity_high_per_s": ends[1]}
    return row, ends or (found.rate, found.rate)


def _ends(found: Capacity) -> tuple[float, float] | None:
    if not found.parts:
        return None
    error = LogEstimate(log=0.0, parts=found.parts).interval
    return None if error is None else (found.rate * error[0], found.rate * error[1])


def _why_not(services_s: Sequence[float], *, rate: float, slo: Slo, seconds: float) -> str:
    """Why no live run can decide anything; '' where one can."""
    if rate <= 0.0:
        worst = format_duration(max(services_s))
        return f"requests that never wait do not hold {slo.label}: services up to {worst}"
    needed_s = LEAST_LATE / (1.0 - slo.at) / rate
    if needed_s > seconds:
        return (
            f"no live run: at {format_number(rate)}/s it takes --seconds {needed_s:.0f} for "
            f"{LEAST_LATE} requests that may be late"
        )
    return ""


def _checked(
    low: float, high: float, *, slo: Slo, arrivals: Arrivals, live: Callable[[Arrivals], Tally]
) -> tuple[Tally, str, str]:
    """Run at both rates; return the run at the lower one, the verdict, and both in words."""
    # What comes in the busiest hour of a day is what must hold.
    tally = live(arrivals.scaled_to(low / arrivals.busiest))
    at_low = verdict_of(tally, slo=slo)
    words = _words(low, tally, verdict=at_low)
    if at_low != "holds":
        return tally, "refuted" if at_low == "breaks" else "predicted", words
    above = live(arrivals.scaled_to(high / arrivals.busiest))
    at_high = verdict_of(above, slo=slo)
    words += f"; {_words(high, above, verdict=at_high)}"
    return tally, "confirmed" if at_high == "breaks" else "low_only", words


def verdict_of(tally: Tally, *, slo: Slo) -> str:
    """What a run says of the limits; nothing where its books or its client are wrong.

    Just under the largest rate no run of minutes could be sure that it holds: enough requests have
    to be in time, and where they are not, surely too few for it to break.
    """
    is_wrong = any(code in INVALIDATING for code, _ in tally.problems)
    found = tally.attainment
    assert found is not None, "it has limits"
    if is_wrong:
        return "undecided"
    return "holds" if found.frac >= slo.at else found.verdict(slo.at)


def _words(rate: float, tally: Tally, *, verdict: str) -> str:
    found: Any = tally.attainment
    shares = " to ".join(f"{100 * end:.4g}" for end in (found.low, found.high))
    return f"live at {format_number(rate)}/s: {100 * found.frac:.4g} % [{shares}] {verdict}"
