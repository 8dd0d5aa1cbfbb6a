"""The largest rate that holds the limits: service times, a replay of the queue, live runs.

Services are measured in a closed loop, as steps are; the queue is replayed with them
(`bench.core.traffic`). Finding the rate by live runs would take a hundred thousand requests, so
those only check: one at the lower end of the interval, which should hold, and one 15 % over the
upper end, which should not. A first run that does not hold shows what services are when requests
come by themselves: from those the rate is worked out anew, and checked once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.core.log_estimate import LogEstimate
from bench.core.traffic import Capacity, RequestKind
from bench.core.units import format_duration, format_number
from bench.measure.engine.engine import Engine
from bench.measure.timing.limits import Limits
from bench.measure.timing.validity import INVALIDATING, Problems
from bench.measure.timing.window import Window, measured_enough, run_window
from bench.results.schema import Row
from bench.serve.arrivals import Arrivals
from bench.serve.columns import Tally
from bench.serve.live.services import Services, service_columns
from bench.serve.slo import Slo

WANTED_SERVICES = 700
"""From so many the rate is within 5 % in the median, where each is worth one: docs/serving.md."""
WANTED_INDEPENDENT = 200
OVER = 1.15
"""Of the upper end, where the limits should no longer hold."""
UNDER = 0.98
"""A rate that is worked out anew is checked where it is under so much of the one before."""
LEAST_LATE = 10
"""Requests that may be late in a live run: with fewer it decides nothing."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What was found."""

    row: Row
    problems: Problems
    window_s: tuple[float, float] | None
    """Of the live run that the row is of; None without one."""


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """A live run at a rate that should hold."""

    rate: float
    tally: Tally
    verdict: str

    @property
    def words(self) -> str:
        found = self.tally.attainment
        if found is None:
            return f"live at {format_number(self.rate)}/s: nobody came in the busiest hour"
        shares = " to ".join(f"{100 * end:.4g}" for end in (found.low, found.high))
        share = f"{100 * found.frac:.4g} % [{shares}] {self.verdict}"
        return f"live at {format_number(self.rate)}/s: {share}"


def closed_loop(engine: Engine, *, limits: Limits, most_s: float, step_s: float) -> Window:
    """Time requests one after the other: as many as an interval takes, in so many seconds."""
    enough = measured_enough(limits)

    def should_stop(elapsed_s: float, done_s: list[float]) -> bool:
        has_all = elapsed_s >= most_s or limits.is_smoke
        if not has_all and len(done_s) >= WANTED_SERVICES:  # slow ones may follow one another
            worth = RequestKind(services=(tuple(done_s),)).num_independent
            has_all = worth >= WANTED_INDEPENDENT
        return has_all and enough(elapsed_s, done_s)

    return run_window(engine, should_stop=should_stop, expected_step_s=step_s, ends_round=True)


def search(
    services: Services,
    *,
    slo: Slo,
    arrivals: Arrivals,
    seconds: float,
    live: Callable[[Arrivals], Tally],
) -> Searched:
    """Find the rate from these services and check it by live runs of so many seconds."""

    def checked(rate: float) -> _Checked:
        # What comes in the busiest hour of a day is what must hold.
        tally = live(arrivals.scaled_to(rate / arrivals.busiest))
        return _Checked(rate=rate, tally=tally, verdict=verdict_of(tally, slo=slo))

    judged_s = arrivals.busiest_s(seconds)
    row, (low, high) = by_replay(services, slo=slo, seconds=judged_s)
    if why := _why_not(services, rate=low, slo=slo, arrivals=arrivals, seconds=seconds):
        return _searched(row, verdict="predicted", words=[why], services=services)
    runs = [checked(low)]
    if runs[0].verdict != "holds" and not _is_wrong(runs[0].tally):
        met = services.as_met(runs[0].tally.served)
        row_met, ends = by_replay(met, slo=slo, seconds=judged_s)
        why = _why_not(met, rate=ends[0], slo=slo, arrivals=arrivals, seconds=seconds)
        if ends[0] < UNDER * low and not why:
            # What a service takes stays what was timed, as the samples that are kept.
            row = row_met | service_columns(services)
            services, (low, high) = met, ends
            runs.append(checked(low))
    at_low, above = runs[-1], OVER * high
    verdict = {"holds": "low_only", "breaks": "refuted"}.get(at_low.verdict, "predicted")
    if at_low.verdict == "holds":
        broke = [one for one in runs if one.verdict == "breaks" and one.rate <= above]
        runs += [] if broke else [checked(above)]
        verdict = "confirmed" if broke or runs[-1].verdict == "breaks" else "low_only"
    words = [one.words for one in runs]
    if "capacity_low_per_s" not in row and at_low.verdict == "holds":
        row |= {
            "capacity_low_per_s": at_low.rate,
            "capacity_high_per_s": min(
                (one.rate for one in runs if one.verdict == "breaks"), default=None
            ),
        }
    return _searched(row, verdict=verdict, words=words, services=services, tally=at_low.tally)


def _searched(
    row: Row, *, verdict: str, words: list[str], services: Services, tally: Tally | None = None
) -> Searched:
    problems: Problems = []
    if not services.has_enough and row["capacity_per_s"]:
        words = [f"{services.known} are too few for an interval", *words]
    if tally is not None:
        row = tally.row | row
        problems = [one for one in tally.problems if one[0] != "short_run"]
    code = "" if verdict in ("confirmed", "low_only") else "capacity_not_confirmed"
    return Searched(
        row=row | {"capacity_is": verdict},
        problems=[*problems, (code, "; ".join(words))],
        window_s=None if tally is None else tally.window_s,
    )


def by_replay(services: Services, *, slo: Slo, seconds: float) -> tuple[Row, tuple[float, float]]:
    """Return the columns of the capacity, and between which rates live runs check it.

    The lower end is low enough for a run of so many seconds to hold in 19 of 20 cases.
    """
    found = services.capacity(slo)
    row: Row = {**service_columns(services), "capacity_per_s": found.rate}
    ends = _ends(found)
    low, high = ends or (found.rate, found.rate)
    if low > 0.0:
        low = services.live_rate(slo, below=low, seconds=seconds)
    if ends is not None:
        row |= {"capacity_low_per_s": low, "capacity_high_per_s": high}
    return row, (low, high)


def _ends(found: Capacity) -> tuple[float, float] | None:
    if not found.parts:
        return None
    error = LogEstimate(log=0.0, parts=found.parts).interval
    return None if error is None else (found.rate * error[0], found.rate * error[1])


def _why_not(
    services: Services, *, rate: float, slo: Slo, arrivals: Arrivals, seconds: float
) -> str:
    """Why no live run can decide anything; '' where one can."""
    if rate <= 0.0:
        worst = format_duration(services.longest_alone_s)
        return f"requests that find nobody do not hold {slo.label}: they take up to {worst}"
    needed_s = LEAST_LATE / (1.0 - slo.at) / rate / arrivals.busiest_s(1.0)
    if needed_s > seconds:
        when = " in the busiest hour" if arrivals.hours else ""
        return (
            f"no live run: at {format_number(rate)}/s it takes --seconds {needed_s:.0f} for "
            f"{LEAST_LATE} requests that may be late{when}"
        )
    return ""


def verdict_of(tally: Tally, *, slo: Slo) -> str:
    """What a run says of the limits; nothing where its books or its client are wrong.

    Just under the largest rate no run of minutes could be sure that it holds: enough requests have
    to be in time, and where they are not, surely too few for it to break.
    """
    found = tally.attainment
    if found is None or _is_wrong(tally):
        return "undecided"
    return "holds" if found.frac >= slo.at else found.verdict(slo.at)


def _is_wrong(tally: Tally) -> bool:
    return any(code in INVALIDATING for code, _ in tally.problems)
