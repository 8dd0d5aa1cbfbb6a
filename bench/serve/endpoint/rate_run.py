"""One rate of requests at an endpoint: warmed up at that rate, then measured without a gap.

The state of a server moves its times (caches, clocks, graphs that are still compiled), and so does
how many requests it has: the window begins when the times to the first token have settled at the
rate itself, while those of before are still being answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bench.core.statistics import median
from bench.serve.arrivals import Arrivals
from bench.serve.columns import attainment_of, in_busiest_hours
from bench.serve.endpoint.endpoint_client import EndpointClient
from bench.serve.endpoint.wire.request_stream import Reply
from bench.serve.judgement import is_overloaded
from bench.serve.slo import Slo, Verdict
from bench.serve.tally import LEFT, Served

BLOCK = 10
"""Requests whose medians are compared."""
STEADY_FRAC, STEADY_S = 0.1, 0.002
WARM_S, WARM_REQUESTS, MOST_WARM_S = 10.0, 50, 120.0
"""The warm-up ends unsettled after the later of the first two, and after the third in any case."""
FEWEST, MORE_FRAC = 50, 0.2
"""Requests for a first look at whether the limit holds, and how many more for the next."""
SHORTEST_FRAC = 0.2
"""Of the time that a run may take: nothing is decided before."""
GONE_AFTER = 20
"""Requests in a row that reach no server."""
_GONE = frozenset({"refused", "reset"})


class RateRun:
    """Runs one rate against an endpoint."""

    def __init__(
        self,
        client: EndpointClient,
        arrivals: Arrivals,
        *,
        slo: Slo | None,
        seconds: float,
        ends_when_decided: bool = False,
        on_look: Callable[[RateRun], None] = lambda _run: None,
    ) -> None:
        assert arrivals.rate_per_s is not None, "a run has a rate"
        self.rate_per_s = arrivals.rate_per_s
        self.arrivals, self.slo, self.seconds = arrivals, slo, seconds
        self.is_steady = False
        """Whether the warm-up settled."""
        self.gone = ""
        """Why the run was given up: what became of the server."""
        self.verdict: Verdict = "undecided"
        self.is_over = False
        self._client, self._on_look = client, on_look
        self._is_search, self._is_decided = ends_when_decided, False
        self._day_s = seconds
        name = f"{self.rate_per_s:.6g}"
        self._warm, self.loop = client.open_loop(f"{name}/warm"), client.open_loop(name)
        self._name, self._looked_at = name, 0
        self._is_warm = asyncio.Event()
        self._most_warm_s = min(max(WARM_S, WARM_REQUESTS / self.rate_per_s), MOST_WARM_S)

    async def run(self) -> None:
        """Warm up, measure, and wait for the last answer."""
        evenly = Arrivals(law="poisson", label="", rate_per_s=self.rate_per_s)
        before = self._client.schedule(evenly, seconds=self._most_warm_s, name=f"{self._name}/warm")
        warming = asyncio.create_task(self._warm.run(before, look=self._look_at_warm_up))
        is_warm = asyncio.create_task(self._is_warm.wait())
        try:
            await asyncio.wait([warming, is_warm], return_when=asyncio.FIRST_COMPLETED)
            if not self.gone:
                schedule = self._client.schedule(
                    self.arrivals, seconds=self.seconds, name=self._name
                )
                await self.loop.run(schedule, look=self._look)
            await warming
        finally:
            warming.cancel()
            is_warm.cancel()
            await asyncio.gather(warming, is_warm, return_exceptions=True)
        self.verdict = self._verdict_of(self.served)
        self.is_over = True
        self._on_look(self)

    @property
    def replies(self) -> list[Reply]:
        """What came back, in the order in which it was to come."""
        return sorted(self.loop.replies, key=lambda one: one.served.scheduled_s)

    @property
    def served(self) -> list[Served]:
        """Every request that was sent, those that were let go as well, as it was to come."""
        now_s = self.loop.elapsed_s
        left = [
            Served(
                scheduled_s=one.at_s,
                sent_s=one.at_s,
                started_s=one.at_s,
                ended_s=now_s,
                status=LEFT,
                tokens_asked=one.output_tokens,
            )
            for one in self.loop.waiting.values()
        ]
        every = [one.served for one in self.loop.replies] + left
        return sorted(every, key=lambda one: one.scheduled_s)

    def _look_at_warm_up(self) -> None:
        if self._is_warm.is_set():
            return
        self.is_steady = has_settled(self._warm.replies, elapsed_s=self._warm.elapsed_s)
        self.gone = _gone(self._warm.replies)
        if self.gone:
            self._warm.let_go()
        elif self.is_steady:
            self._warm.stop_sending()
        is_late = self._warm.elapsed_s >= self._most_warm_s
        if is_late and self._is_search and not self.is_steady:
            self._warm.let_go()  # a queue that grew would hide what the window itself does
        if self.is_steady or self.gone or is_late:
            self._is_warm.set()

    def _look(self) -> None:
        self.gone = _gone(self.loop.replies)
        if self.gone:
            self.seconds = min(self.seconds, self.loop.elapsed_s)
            self.loop.let_go()
            self._warm.let_go()
        elif self._is_search and not (self._is_decided or self.arrivals.hours):  # a day runs on
            self._decide()
        self._on_look(self)

    def _decide(self) -> None:
        """Stop when two looks one after the other find that the limit holds, or that it breaks."""
        since_s = min((one.at_s for one in self.loop.waiting.values()), default=float("inf"))
        known = [one for one in self.served if one.scheduled_s < since_s]
        is_early = self.loop.elapsed_s < SHORTEST_FRAC * self.seconds
        if is_early or len(known) < max(FEWEST, (1.0 + MORE_FRAC) * self._looked_at):
            return
        before, self.verdict = self.verdict, self._verdict_of(known)
        self._looked_at = len(known)
        if self.verdict == before != "undecided":
            self._is_decided, self.seconds = True, self.loop.elapsed_s
            self.loop.stop_sending()
            if self.verdict == "breaks":  # the others would take minutes, and change nothing
                self.loop.let_go()
                self._warm.let_go()

    def _verdict_of(self, served: Sequence[Served]) -> Verdict:
        judged = in_busiest_hours(served, arrivals=self.arrivals, seconds=self._day_s)
        if self.slo is None or not judged:
            return "undecided"
        found = attainment_of(judged, slo=self.slo)
        verdict = found.verdict(self.slo.at)
        is_short = found.frac < self.slo.at and verdict == "undecided"
        if is_short and is_overloaded(served, seconds=self.seconds, is_one_server=False):
            return "breaks"
        return verdict


def has_settled(replies: Sequence[Reply], *, elapsed_s: float) -> bool:
    """Whether the times to the first token of the last answers are those of the ones before."""
    served = [one.served for one in replies if one.served.status == "ok"]
    if len(served) < 2 * BLOCK or elapsed_s < 2.0 * median([one.latency_s for one in served]):
        return False
    ttft_s = [one.ttft_s or 0.0 for one in served]
    before, now = median(ttft_s[-2 * BLOCK : -BLOCK]), median(ttft_s[-BLOCK:])
    return abs(now - before) <= max(STEADY_FRAC * before, STEADY_S)


def _gone(replies: Sequence[Reply]) -> str:
    last = replies[-GONE_AFTER:]
    if len(last) < GONE_AFTER or any(one.served.status not in _GONE for one in last):
        return ""
    return f"the server is gone: {last[-1].words}"
