"""What a server held at each rate at which requests came, and where it stops holding its limit.

Live runs of one setting that differ in their rate alone belong together; each is one attainment.
The knee is a band and no figure: the interval of the capacity where one was worked out, else
what lies between the highest rate that held and the lowest that broke. Standard library only.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.analysis.trials.configuration import Trials, grouped, number
from bench.core.errors import UsageError
from bench.core.units import PERIOD_S, parse_percentile
from bench.results.schema import Row

NUM_HOURS = 24
_SERVED_BY = ("slo", "max_batch", "max_wait_ms", "engine")
_RATE = re.compile(rf"[^/]*/\s*({'|'.join(PERIOD_S)})")
_TOKENS = "token"
RunsOf = Callable[[Trials, Row], Sequence[Mapping[str, Any]]]
"""What is kept beside a row of each live run of its trial."""


@dataclass(frozen=True, kw_only=True)
class LiveRun:
    """One run at one rate."""

    offered_per_s: float
    share: float
    """Of the requests, that held every limit."""
    low: float | None
    high: float | None
    """Ends of its 95 % interval."""

    def verdict(self, at: float | None) -> str:
        """holds, breaks or undecided: on which side of the wanted share the interval lies."""
        if at is None or self.low is None or self.high is None:
            return ""
        return "holds" if self.low >= at else "breaks" if self.high < at else "undecided"


@dataclass(frozen=True, kw_only=True)
class Knee:
    """The rate up to which the limit holds lies in here; an end that is not known is None.

    Equal ends are a figure without an interval, and no rate at all where they are 0.
    """

    low_per_s: float | None
    high_per_s: float | None
    how: tuple[str, ...]
    """As rows have it: confirmed, low_only, refuted, predicted; else `measured`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OfferedLoad:
    """Runs of one setting at several rates."""

    runs: Sequence[Trials]
    others: Sequence[LiveRun] = ()
    """Runs by which a rate was looked for, beside those of the rows."""

    @property
    def first(self) -> Trials:
        """The run that names the setting."""
        return self.runs[0]

    @property
    def slo(self) -> str:
        """The limits, as they were given."""
        return self.first.text("slo")

    @property
    def at(self) -> float | None:
        """Share of the requests that have to hold them."""
        return wanted_share(self.slo)

    @property
    def law(self) -> str:
        """How requests come, whatever their rate is."""
        return law_of(self.first.text("arrivals"))

    @property
    def unit(self) -> str:
        """What a request is: an item of the workload, where it is one of them."""
        return request_unit(self.first)

    @property
    def used(self) -> list[Row]:
        """Rows of every run that count."""
        return [row for run in self.runs for row in run.used]

    @cached_property
    def live(self) -> list[LiveRun]:
        """Live runs, by their rate."""
        own = filter(None, map(_live, self.used))
        return sorted([*own, *self.others], key=lambda one: one.offered_per_s)

    @cached_property
    def knee(self) -> Knee | None:
        """Where the limit stops holding; None where no row shows it."""
        stated = [row for row in self.used if _ends(row) != (None, None)]
        if not stated:
            return self._measured_knee()
        lows, highs = zip(*map(_ends, stated), strict=True)
        return Knee(
            low_per_s=min((low for low in lows if low is not None), default=None),
            high_per_s=max((high for high in highs if high is not None), default=None),
            how=tuple(dict.fromkeys(str(row.get("capacity_is") or "measured") for row in stated)),
        )

    def _measured_knee(self) -> Knee | None:
        by_verdict = grouped(self.live, lambda one: one.verdict(self.at))
        breaks = min((one.offered_per_s for one in by_verdict.get("breaks", ())), default=None)
        holds = [
            one.offered_per_s
            for one in by_verdict.get("holds", ())
            if breaks is None or one.offered_per_s < breaks
        ]
        if breaks is None and not holds:
            return None
        return Knee(low_per_s=max(holds, default=None), high_per_s=breaks, how=("measured",))


def _ends(row: Row) -> tuple[float | None, float | None]:
    """Both ends of the capacity as far as they are known; without any, the figure alone."""
    rate, low, high = (number(row, f"capacity{end}_per_s") for end in ("", "_low", "_high"))
    if low is None and high is None:
        low = high = rate
    is_odd = any(end is not None and end < 0.0 for end in (low, high))
    return (None, None) if is_odd or (low and high and low > high) else (low, high)


def _live(row: Mapping[str, Any]) -> LiveRun | None:
    offered, share = number(row, "offered_per_s"), number(row, "attainment_frac")
    if not offered or share is None or not 0.0 <= share <= 1.0:
        return None
    low, high = (number(row, f"attainment_{end}_frac") for end in ("low", "high"))
    is_interval = low is not None and high is not None and 0.0 <= low <= share <= high <= 1.0
    return LiveRun(
        offered_per_s=offered,
        share=share,
        low=low if is_interval else None,
        high=high if is_interval else None,
    )


def wanted_share(slo: str) -> float | None:
    """0.99 of '2s@p99' and of 'ttft=2s@p99,tpot=200ms@p99'; None where no limit is given."""
    try:
        return parse_percentile(slo.rpartition("@")[2], what="slo") if "@" in slo else None
    except UsageError:
        return None


def request_unit(run: Trials) -> str:
    """'volume' where a request is one, else 'request'."""
    unit = run.text("items_unit")
    return unit if unit and unit != _TOKENS and run.first.get("batch") == 1 else "request"


def law_of(arrivals: str) -> str:
    """How requests come, without the rate: 'poisson' of 'poisson:40/s' and of 'auto'."""
    parts = [part for part in arrivals.split(":") if part and not _RATE.fullmatch(part)]
    return ":".join(parts).replace("auto", "poisson", 1)


def offered_loads(
    shown: Iterable[Trials], *, runs_of: RunsOf = lambda _one, _row: ()
) -> list[OfferedLoad]:
    """Served runs, those together that differ in the rate alone."""
    served = (run for run in shown if run.is_served and run.used)

    def setting(run: Trials) -> tuple[str, ...]:
        law = law_of(run.text("arrivals"))
        return (*run.terms(), *map(run.text, _SERVED_BY), law)

    def others(run: Trials) -> list[LiveRun]:
        found = (_live(one) for row in run.used for one in runs_of(run, row))
        own = {row.get("offered_per_s") for row in run.used}
        return [one for one in found if one is not None and one.offered_per_s not in own]

    return [
        OfferedLoad(runs=runs, others=[one for run in runs for one in others(run)])
        for runs in grouped(served, setting).values()
    ]


def used_by_hour(requests: Sequence[Mapping[str, object]], *, window_s: float) -> list[float]:
    """Share of each hour of a day in which the server worked; the day takes the whole window.

    Requests of one batch began at one time and are counted once.
    """
    hour_s = window_s / NUM_HOURS
    busy = [0.0] * NUM_HOURS
    services = {one.get("started_s"): one.get("ended_s") for one in requests if _is_answered(one)}
    for start_s, end_s in services.items():
        if not isinstance(start_s, int | float) or not isinstance(end_s, int | float):
            continue
        for hour in range(max(0, int(start_s / hour_s)), NUM_HOURS):
            if hour * hour_s >= end_s:
                break
            inside_s = min(end_s, (hour + 1) * hour_s) - max(start_s, hour * hour_s)
            busy[hour] += max(0.0, inside_s) / hour_s
    return [min(one, 1.0) for one in busy]


def _is_answered(request: Mapping[str, object]) -> bool:
    return request.get("status", "ok") == "ok"
