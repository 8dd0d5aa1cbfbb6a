"""So many users of an endpoint, each of whom reads an answer before asking again.

Only to check the law that turns a rate into users; a capacity is never looked for this way.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress

from bench.serve.endpoint.endpoint_client import EndpointClient
from bench.serve.endpoint.wire.request_stream import request_stream
from bench.serve.lengths import OUTPUT, PROMPT

ENOUGH = 400
"""Requests that a rate is known by to some 5 %."""
LEAST_S, MOST_S = 30.0, 240.0


def users_of(rate_per_s: float, *, think_s: float, latency_s: float) -> float:
    """Sessions that come to this rate together: each asks once in a think time and a latency."""
    return rate_per_s * (think_s + latency_s)


class ClosedLoop:
    """Sessions against an endpoint."""

    def __init__(self, client: EndpointClient, *, think_s: float) -> None:
        self._client, self._think_s = client, think_s
        self._sent_s: list[float] = []

    async def rate_per_s(
        self, users: int, *, expected_per_s: float, latency_s: float
    ) -> tuple[float, int]:
        """Return how many requests a second so many users send, and from how many it is known."""
        apart_s = 2.0 * latency_s  # sessions begin with their thoughts, and none with an answer
        seconds = min(max(LEAST_S, ENOUGH / expected_per_s), MOST_S)
        start_s = time.perf_counter()
        sessions = [asyncio.create_task(self._session(place)) for place in range(users)]
        try:
            await asyncio.wait(sessions, timeout=apart_s + seconds)
        finally:
            for session in sessions:
                session.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)
        for session in sessions:
            with suppress(asyncio.CancelledError):
                session.result()  # a fault of ours raises
        ended_s = start_s + apart_s + seconds
        num = sum(start_s + apart_s <= one < ended_s for one in self._sent_s)
        return num / seconds, num

    async def _session(self, place: int) -> None:
        client, seed = self._client, f"{self._client.seed}/session {place}"
        source = random.Random(seed)
        lengths = [
            default if law.median is None else law
            for law, default in ((client.prompt, PROMPT), (client.output, OUTPUT))
        ]
        while True:
            number = len(self._sent_s)
            (prompt,), (output,) = (one.draw(1, seed=f"{seed}/{number}") for one in lengths)
            body = client.dialect.body(
                prompt_tokens=prompt, output_tokens=output, seed=f"{seed}/{number}"
            )
            await asyncio.sleep(source.expovariate(1.0 / self._think_s))
            self._sent_s.append(time.perf_counter())
            await request_stream(
                client.connections,
                client.dialect,
                body=body,
                tokens_asked=output,
                scheduled_s=0.0,
                start_s=self._sent_s[-1],
            )
