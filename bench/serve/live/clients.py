"""Who sends the requests of a schedule: a thread beside the one that serves.

The schedule does not care what becomes of a request: the next one is sent when its time has come,
however many wait. The thread sleeps until a millisecond before that, then yields until it is there.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.measure.timing.clock import Clock

HEAD_START_S = 0.02
"""From the call until the run begins, for the thread to be there."""
SPIN_S = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A request that has come. Times in seconds from the start of the run."""

    place: int
    """In the schedule."""
    scheduled_s: float
    sent_s: float


class Client(Protocol):
    """Whoever sends requests to a server."""

    @property
    def is_over(self) -> bool:
        """Whether every request was received."""

    def now_s(self) -> float:
        """Time since the run began."""

    def start(self) -> None:
        """Begin to send."""

    def receive(self, *, until_s: float) -> list[Sent]:
        """Return what has come; where nothing has, wait for the next one until that time."""

    def stop(self) -> None:
        """Send nothing any more."""


class ScheduleClient:
    """Sends a schedule's requests, given as offsets in order, from a thread of its own.

    `on_sent` is called there for each.
    """

    def __init__(
        self, schedule_s: Sequence[float], *, clock: Clock, on_sent: Callable[[], None] | None
    ) -> None:
        self._schedule_s = schedule_s
        self._clock = clock
        self._on_sent = on_sent
        self._inbox: queue.SimpleQueue[Sent] = queue.SimpleQueue()
        self._num_received = 0
        self._is_stopped = False
        self.start_s = 0.0
        self.sent_s: list[float] = []
        """When each request was sent, as far as the schedule went."""

    @property
    def is_over(self) -> bool:
        """Whether every request was received."""
        return self._num_received == len(self._schedule_s)

    def now_s(self) -> float:
        """Time since the run began."""
        return self._clock.now_s() - self.start_s

    def start(self) -> None:
        """Start the thread; the run begins a moment later."""
        self.start_s = self._clock.now_s() + HEAD_START_S
        threading.Thread(target=self._send_all, daemon=True).start()

    def _send_all(self) -> None:
        for place, at_s in enumerate(self._schedule_s):
            while (left_s := at_s - self.now_s()) > 0.0:
                time.sleep(left_s - SPIN_S if left_s > SPIN_S else 0.0)
            if self._is_stopped:
                return
            self.sent_s.append(self.now_s())
            if self._on_sent is not None:
                self._on_sent()
            self._inbox.put(Sent(place=place, scheduled_s=at_s, sent_s=self.sent_s[place]))

    def receive(self, *, until_s: float) -> list[Sent]:
        """Return what has come; where nothing has, wait for the next one until that time."""
        found = []
        with contextlib.suppress(queue.Empty):
            left_s = max(0.0, until_s - self.now_s())
            found.append(self._inbox.get(timeout=left_s))
            while True:
                found.append(self._inbox.get_nowait())
        self._num_received += len(found)
        return found

    def stop(self) -> None:
        """Send nothing any more."""
        self._is_stopped = True
