"""Requests of a schedule, each sent when it is due whatever became of those before it.

A server that answers late is then asked as often as one that answers at once, as users would: the
queue is the server's, and its wait is in every latency. Each request's text is written before it is
due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from bench.serve.arrival_files import Arrival
from bench.serve.endpoint.wire.connections import Connections
from bench.serve.endpoint.wire.dialect import Dialect
from bench.serve.endpoint.wire.request_stream import Reply, request_stream

TICK_S = 0.25
"""Between two looks at how it goes."""
_SPIN_S = 0.001
"""The selector wakes up to a millisecond late."""
_HEAD_START_S = 0.05


class OpenLoop:
    """One run of a schedule; what has ended stays known when the run is cut short."""

    def __init__(self, connections: Connections, dialect: Dialect, *, seed: str) -> None:
        self.replies: list[Reply] = []
        """In the order in which they ended."""
        self.waiting: dict[int, Arrival] = {}
        """Sent and not ended, by place in the schedule."""
        self._connections, self._dialect, self._seed = connections, dialect, seed
        self._start_s = time.perf_counter()
        self._sending: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def elapsed_s(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self._start_s

    async def run(
        self, schedule: Iterable[Arrival], *, look: Callable[[], None] = lambda: None
    ) -> None:
        """Send all, look now and then, and wait until everything has ended."""
        self._start_s = time.perf_counter() + _HEAD_START_S
        self._sending = asyncio.create_task(self._send(schedule))
        self._tasks.add(self._sending)
        try:
            while self._tasks:
                ended, _ = await asyncio.wait(self._tasks, timeout=TICK_S)
                self._tasks -= ended
                for task in ended:
                    if not task.cancelled():
                        task.result()  # a fault of ours raises
                look()
        finally:
            self.let_go()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop_sending(self) -> None:
        """Send nothing any more; what was sent goes on."""
        if self._sending is not None:
            self._sending.cancel()

    def let_go(self) -> None:
        """Wait for nothing any more; requests that have not ended stay in `waiting`."""
        for task in self._tasks:
            task.cancel()

    async def _send(self, schedule: Iterable[Arrival]) -> None:
        for place, arrival in enumerate(schedule):
            assert arrival.prompt_tokens and arrival.output_tokens, "each has lengths"
            body = self._dialect.body(
                prompt_tokens=arrival.prompt_tokens,
                output_tokens=arrival.output_tokens,
                seed=f"{self._seed}/{place}",
            )
            await self._until(arrival.at_s)
            self.waiting[place] = arrival
            self._tasks.add(asyncio.create_task(self._one(place, arrival, body=body)))

    async def _until(self, at_s: float) -> None:
        while (left_s := at_s - self.elapsed_s) > 0.0:
            await asyncio.sleep(left_s - _SPIN_S if left_s > 2 * _SPIN_S else 0.0)

    async def _one(self, place: int, arrival: Arrival, *, body: bytes) -> None:
        reply = await request_stream(
            self._connections,
            self._dialect,
            body=body,
            tokens_asked=arrival.output_tokens or 0,
            scheduled_s=arrival.at_s,
            start_s=self._start_s,
        )
        del self.waiting[place]
        self.replies.append(reply)
