"""The rate that an endpoint holds, looked for by runs, and the users that it comes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from bench.core.errors import MeasurementError
from bench.core.units import counted, format_duration, format_number
from bench.results.schema import Row
from bench.serve.arrivals import Arrivals
from bench.serve.endpoint.bracket import Bracket, bracket_of, next_rate
from bench.serve.endpoint.closed_loop import ClosedLoop, users_of
from bench.serve.endpoint.endpoint_client import EndpointClient
from bench.serve.endpoint.rate_run import RateRun
from bench.serve.endpoint.wire.request_stream import request_stream
from bench.serve.slo import Verdict, fewest_to_hold

POINT_S, POINT_REQUESTS, MOST_POINT_S = 120.0, 500, 600.0
"""A rate is given up undecided after so long, or so many requests where that takes longer."""
ALONE = 4
"""Requests one after the other that the search begins with."""
USERS_FRAC = 0.1
MOST_USERS = 10_000
RunOf = Callable[[Arrivals, float], RateRun]
"""Makes the run of one rate, for at most so many seconds, which ends when it is decided."""


@dataclass(frozen=True, kw_only=True)
class FoundRate:
    """What a search came to."""

    run: RateRun
    """The one at the highest rate that held; the lowest that was tried where none did."""
    bracket: Bracket
    words: str
    """Each rate that was tried."""

    @property
    def row(self) -> Row:
        """The columns of the bracket."""
        found = self.bracket
        is_both = found.holds_per_s is not None and found.breaks_per_s is not None
        return {
            "capacity_per_s": found.holds_per_s,
            "capacity_low_per_s": found.holds_per_s,
            "capacity_high_per_s": found.breaks_per_s,
            "capacity_is": "confirmed" if is_both else "low_only" if found.holds_per_s else None,
        }


async def found_capacity(
    client: EndpointClient, run_of: RunOf, *, arrivals: Arrivals, seconds: float | None
) -> FoundRate:
    """Try rates until the bracket is narrow; `MeasurementError` where no answer comes alone."""
    first_per_s = 1.0 / await _alone_s(client)
    tried: list[tuple[float, Verdict]] = []
    runs: dict[float, RateRun] = {}
    words: list[str] = []
    while (rate := next_rate(tried, first_per_s=first_per_s)) is not None:
        limit_s = seconds or min(max(POINT_S, POINT_REQUESTS / rate), MOST_POINT_S)
        judged_s = arrivals.busiest_s(limit_s)
        if tried and (why := _too_slow(runs[tried[-1][0]], rate=rate, seconds=judged_s)):
            words.append(why)
            break
        # What comes in the busiest hour of a day is what must hold.
        run = run_of(arrivals.scaled_to(rate / arrivals.busiest), limit_s)
        await run.run()
        tried.append((rate, run.verdict))
        runs[rate] = run
        if run.gone:
            break
    bracket = bracket_of(tried)
    words = [f"{format_number(rate)}/s {verdict}" for rate, verdict in sorted(tried)] + words
    run = runs[bracket.holds_per_s or min(runs)]
    return FoundRate(run=run, bracket=bracket, words=", ".join(words))


def _too_slow(before: RateRun, *, rate: float, seconds: float) -> str:
    """Why so few requests would come that nothing could hold; '' where enough do."""
    fewest = fewest_to_hold(before.slo.at) if before.slo is not None else 0
    if rate * seconds >= fewest:
        return ""
    return f"{format_number(rate)}/s takes {format_duration(fewest / rate)} to be decided"


async def _alone_s(client: EndpointClient) -> float:
    """Mean latency of requests of which none waits for another."""
    law = Arrivals(law="uniform", label="", rate_per_s=1.0)
    latencies_s = []
    for place, one in enumerate(client.schedule(law, seconds=ALONE, name="alone")):
        assert one.prompt_tokens and one.output_tokens
        body = client.dialect.body(
            prompt_tokens=one.prompt_tokens,
            output_tokens=one.output_tokens,
            seed=f"{client.seed}/alone/{place}",
        )
        reply = await request_stream(
            client.connections,
            client.dialect,
            body=body,
            tokens_asked=one.output_tokens,
            scheduled_s=0.0,
            start_s=time.perf_counter(),
        )
        if reply.served.status != "ok":
            raise MeasurementError(f"a request alone ended as {reply.served.status}: {reply.words}")
        latencies_s.append(reply.served.latency_s)
    return fmean(latencies_s)


async def users_columns(
    client: EndpointClient, found: FoundRate, *, think_s: float
) -> tuple[Row, str]:
    """Return how many users the rate that held comes to, if so many really send it."""
    rate = found.bracket.holds_per_s
    answered = [one for one in found.run.served if one.status == "ok"]
    if rate is None or not answered:
        return {}, ""
    latency_s = fmean(one.latency_s for one in answered)
    users = users_of(rate, think_s=think_s, latency_s=latency_s)
    if not 1 <= users <= MOST_USERS:
        return {}, f"{format_number(users)} users are not tried"
    checked = ClosedLoop(client, think_s=think_s)
    sent_per_s, num = await checked.rate_per_s(
        round(users), expected_per_s=rate, latency_s=latency_s
    )
    words = f"{counted(round(users), 'user')} who think for {format_duration(think_s)} sent "
    words += f"{format_number(sent_per_s)}/s"
    if abs(sent_per_s / rate - 1.0) > max(USERS_FRAC, 2.0 / sqrt(max(num, 1))):
        return {}, f"{words}, not the {format_number(rate)}/s that held: users stay blank"
    return {"users": users}, words
