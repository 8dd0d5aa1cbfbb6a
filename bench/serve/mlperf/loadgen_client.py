"""The requests of LoadGen, as a server takes them: they come when LoadGen sends them.

LoadGen runs in a thread beside the one that serves, and hears that a request is done as soon as the
device is. Its schedule is not shown: what is known here of a request begins when it was sent, and
every latency of a row is LoadGen's own.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measure.timing.clock import Clock
from bench.serve.live.clients import Sent
from bench.serve.mlperf.loadgen import LoadGenTest, LoadGenVerdict, Query, complete, run_test

Answers = Callable[[Sequence[int]], Sequence[bytes]]
"""Serves these samples together; returns what to keep of each, or nothing, when it is done."""


class LoadGenClient:
    """Gives a server what LoadGen sends, and LoadGen what the server has done."""

    def __init__(self, test: LoadGenTest, *, folder: Path, clock: Clock) -> None:
        self._test = test
        self._folder = folder
        self._clock = clock
        self._inbox: queue.SimpleQueue[list[Query] | None] = queue.SimpleQueue()
        self._queries: list[Query] = []
        self._verdict: LoadGenVerdict | None = None
        self._error: BaseException | None = None
        self._start_s = 0.0
        self.is_over = False
        """Whether LoadGen has ended: it has every answer then."""

    def now_s(self) -> float:
        """Time since the run began."""
        return self._clock.now_s() - self._start_s

    def start(self) -> None:
        """Let LoadGen begin."""
        self._start_s = self._clock.now_s()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._verdict = run_test(self._test, issue=self._inbox.put, folder=self._folder)
        except BaseException as error:  # raised where the verdict is asked for
            self._error = error
        finally:
            self._inbox.put(None)

    def receive(self, *, until_s: float) -> list[Sent]:
        """Return what has come; where nothing has, wait for the next query until that time."""
        found: list[Sent] = []
        with contextlib.suppress(queue.Empty):
            queries = self._inbox.get(timeout=max(0.0, until_s - self.now_s()))
            while queries is not None:
                now_s, first = self.now_s(), len(self._queries)
                self._queries += queries
                places = range(first, len(self._queries))
                found += [Sent(place=one, scheduled_s=now_s, sent_s=now_s) for one in places]
                queries = self._inbox.get_nowait()
            self.is_over = True
        return found

    def sample_at(self, place: int) -> int:
        """Which sample a request asks for."""
        return self._queries[place][1]

    def serve(self, places: Sequence[int], *, answers: Answers) -> None:
        """Serve these requests together, and let LoadGen know at once."""
        kept = answers([self.sample_at(place) for place in places])
        complete([self._queries[place][0] for place in places], kept)

    def stop(self) -> None:
        """LoadGen ends by itself."""

    def verdict(self) -> LoadGenVerdict:
        """Return the verdict of a run that is over; raises what LoadGen raised."""
        if self._error is not None:
            raise self._error
        assert self._verdict is not None
        return self._verdict
