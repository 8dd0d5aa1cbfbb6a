"""What a run of requests lets its parent know while it goes on.

Finished requests go to the parent about once a second, in a moment in which nobody waits if there
is one: so a run that is interrupted keeps them, and the share that held the limits is shown.
"""

from __future__ import annotations

import threading
import time
from dataclasses import fields

from bench.measure.messages import Messages, ServedSoFar
from bench.results.schema import Row
from bench.serve.slo import Slo
from bench.serve.tally import Served

LIVE = ("offered_per_s", *(f"attainment{end}_frac" for end in ("", "_low", "_high")))
"""Columns of a live run that are kept beside its requests, whether or not they are its row's."""
EVERY_S, LATEST_S = 1.0, 5.0
MOST_AT_ONCE = 50
"""Requests that are sent between two that are served: some 0.6 ms."""
_NAMES = tuple(one.name for one in fields(Served))


class Report:
    """Collects finished requests of one run, and sends them.

    Where each request that comes is announced, it counts who is there, on a clock of its own.
    """

    def __init__(self, messages: Messages, *, arrivals: str, slo: Slo | None) -> None:
        self._messages = messages
        self._arrivals = arrivals
        self._slo = slo
        self._unsent: list[Served] = []
        self._sent_s = 0.0
        self._num = self._num_held = 0
        self._lock = threading.Lock()
        self._num_present, self._changed_s = 0, 0.0
        self.present_s: float | None = None
        """Number present, integrated over time; None where nobody announced those who come."""

    def came(self) -> None:
        """Count a request that was sent, in the thread that sends."""
        self._count(1)

    def _count(self, change: int) -> None:
        with self._lock:
            now_s = time.monotonic()
            stayed_s = self._num_present * (now_s - self._changed_s)
            self.present_s = (self.present_s or 0.0) + stayed_s
            self._num_present += change
            self._changed_s = now_s

    def ended(self, one: Served) -> None:
        """Take a finished request, or one that is left when the run is over."""
        if self._num_present:
            self._count(-1)
        self._unsent.append(one)
        self._num += 1
        self._num_held += self._slo is not None and one.holds(self._slo)

    def look(self, now_s: float, *, is_idle: bool = True) -> None:
        """Send what there is if it is time to, `now_s` from the start of the run."""
        is_due = now_s - self._sent_s >= (EVERY_S if is_idle else LATEST_S)
        if is_due or (is_idle and len(self._unsent) >= MOST_AT_ONCE):
            self.send(now_s)

    def send(self, now_s: float, *, came_to: Row | None = None) -> None:
        """Send what there is; of a run that is over its columns too."""
        self._sent_s = now_s
        unsent, self._unsent = self._unsent, []
        held_frac = self._num_held / self._num if self._num and self._slo is not None else None
        self._messages.send(
            ServedSoFar(
                elapsed_s=now_s,
                arrivals=self._arrivals,
                num=self._num,
                held_frac=held_frac,
                requests=[_plain(one) for one in unsent],
                columns={name: came_to[name] for name in LIVE if name in came_to}
                if came_to
                else {},
            )
        )


def _plain(one: Served) -> dict[str, float | int | str]:
    return {name: value for name in _NAMES if (value := getattr(one, name)) is not None}
