"""Requests of a schedule, each sent when it is due whatever became of those before it.

A server that answers late is then asked as often as one that answers at once, as users would: the
queue is the server's, and its wait is in every latency. Each request's text is written before it is
due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from bench.serve.arrival_files import Arrival
from bench.serve.endpoint.connections import Connections
from bench.serve.endpoint.dialect import Dialect
from bench.serve.endpoint.request_stream import Reply, request_stream

TICK_S = 0.5
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
        self.num_sent = 0
        self.start_s = 0.0
        self._connections, self._dialect, self._seed = connections, dialect, seed
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def elapsed_s(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self.start_s

    async def run(
        self, schedule: Sequence[Arrival], *, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Send all and wait for the ends; once `is_over`, let go of what has not ended."""
        self.start_s = time.perf_counter() + _HEAD_START_S
        sending = asyncio.create_task(self._send(schedule))
        self._tasks.add(sending)
        try:
            while self._tasks and not is_over():
                ended, _ = await asyncio.wait(self._tasks, timeout=TICK_S)
                self._tasks -= ended
                for task in ended:
                    task.result()  # a fault of ours raises
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, schedule: Sequence[Arrival]) -> None:
        for place, arrival in enumerate(schedule):
            assert arrival.prompt_tokens and arrival.output_tokens, "each has lengths"
            body = self._dialect.body(
                prompt_tokens=arrival.prompt_tokens,
                output_tokens=arrival.output_tokens,
                seed=f"{self._seed}/{place}",
            )
            await self._until(arrival.at_s)
            self.waiting[place] = arrival
            self.num_sent += 1
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
            start_s=self.start_s,
        )
        del self.waiting[place]
        self.replies.append(reply)
