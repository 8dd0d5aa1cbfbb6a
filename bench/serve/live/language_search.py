"""The rate of requests of tokens that holds: looked for by runs, since they share each pass.

Nothing follows from single services here, so there is no queue to replay. What comes out is a
bracket of two measured rates: the highest that held, and the lowest that did not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

from bench.core.units import format_number
from bench.measure.messages import Messages
from bench.measure.timing.validity import Problems
from bench.results.schema import Row
from bench.serve.arrival_files import Arrival
from bench.serve.arrivals import Arrivals
from bench.serve.columns import Tally
from bench.serve.endpoint.bracket import bracket_of, next_rate
from bench.serve.endpoint.closed_loop import users_of
from bench.serve.live.capacity_search import verdict_of
from bench.serve.live.served_phase import ServedPhase
from bench.serve.run_report import Report
from bench.serve.slo import Slo, Verdict
from bench.serve.tally import OK

NUM_ALONE = 4
"""Requests one after the other that the search begins with."""


def search_rates(
    phase: ServedPhase, *, arrivals: Arrivals, slo: Slo, live: Callable[[Arrivals], Tally]
) -> tuple[Row, Problems]:
    """Try rates until the bracket is narrow; the row is of the highest that held."""
    first_per_s = 1.0 / _alone_s(phase)
    tried: list[tuple[float, Verdict]] = []
    tallies: dict[float, Tally] = {}
    while (rate := next_rate(tried, first_per_s=first_per_s)) is not None:
        # What comes in the busiest hour of a day is what must hold.
        tallies[rate] = live(arrivals.scaled_to(rate / arrivals.busiest))
        num = int(tallies[rate].row["requests"] or 0) * arrivals.busiest * arrivals.busiest_s(1.0)
        tried.append((rate, _verdict(tallies[rate], slo=slo, num=num)))
    found = bracket_of(tried)
    low, high = found.holds_per_s, found.breaks_per_s
    shown = low or min(tallies)
    tally = tallies[shown]
    phase.window_s = tally.window_s
    row: Row = tally.row | {
        "capacity_per_s": low,
        "capacity_low_per_s": low,
        "capacity_high_per_s": high,
        "capacity_is": None if low is None else "low_only" if high is None else "confirmed",
    }
    if low is not None:
        row["users"] = _users(tally, rate_per_s=low, think_s=phase.serving.think_s)
    words = ", ".join(f"{format_number(rate)}/s {verdict}" for rate, verdict in sorted(tried))
    code = "capacity_not_confirmed" if low is None or high is None else ""
    problems = [one for one in tally.problems if low is None or one[0] != "short_run"]
    return row, [*problems, (code, f"live at {words}")]


def _users(tally: Tally, *, rate_per_s: float, think_s: float) -> float | None:
    """Return how many people send so much, each of whom thinks between answer and question."""
    latencies_s = [one.latency_s for one in tally.served if one.status == OK]
    if not latencies_s:
        return None
    return users_of(rate_per_s, think_s=think_s, latency_s=fmean(latencies_s))


def _verdict(tally: Tally, *, slo: Slo, num: float) -> Any:
    """What a run shows by so many requests; not that it holds where its queue grew, or where none
    of them could be late.
    """
    found = verdict_of(tally, slo=slo)
    is_growing = any(code == "overloaded" for code, _ in tally.problems)
    has_none_to_spare = num * (1.0 - slo.at) < 1.0
    return "undecided" if found == "holds" and (is_growing or has_none_to_spare) else found


def _alone_s(phase: ServedPhase) -> float:
    """Mean latency of requests of which none waits for another."""
    silent = Report(Messages(), arrivals="", slo=None)
    alone = [Arrival(at_s=0.0)] * NUM_ALONE
    latencies_s = [
        served.latency_s
        for one in phase.sized(alone)
        for served in phase.serve([replace(one, at_s=0.0)], report=silent)
    ]
    return fmean(latencies_s)
