"""A timer on the host: callables run when they are due, each on a thread that it may block.

A completed future runs its callbacks on the thread that completes it, and some block: the PowerSGD
hook issues the next all-reduce in its callback and waits for it. So whoever runs a callable is not
the one who watches the clock: one thread watches (the leader), and before it runs what is due it
passes the watch on. Threads are made when none is idle and then kept; usually there are two.

A sleep ends some 0.1 to 0.3 ms late, most on virtual machines. So it is asked to end early by what
sleeps here usually take too long, and what is left is spun away, letting other threads have the
interpreter. Where the processor is busy or another thread holds the interpreter it still ends late;
that is not corrected for, since compute would then have had the time.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from time import perf_counter

_NUM_SLEEPS = 9
_ASKED_S = 5e-4
_MOST_S = 5e-4
"""Longest spin: more would take from compute what it saves."""


def measure_oversleep_s() -> float:
    """Return what a short sleep takes too long here, at its median; costs some milliseconds."""
    late_s = []
    for _ in range(_NUM_SLEEPS):
        start_s = perf_counter()
        time.sleep(_ASKED_S)
        late_s.append(perf_counter() - start_s - _ASKED_S)
    return min(sorted(late_s)[_NUM_SLEEPS // 2], _MOST_S)


def sleep_until(end_s: float, *, early_s: float) -> None:
    """Return at `end_s` of `perf_counter`, never before; the last `early_s` are spun."""
    while (left_s := end_s - perf_counter()) > 0:
        # Sleeping for nothing lets another thread have the interpreter.
        time.sleep(left_s - early_s if left_s > early_s else 0)


_Due = tuple[float, int, Callable[[], None]]
"""When, in which order of asking, and what."""


class Completions:
    """A timer whose callables may block, and may ask for further ones."""

    def __init__(self, *, early_s: float = 0.0) -> None:
        self._early_s = early_s
        lock = threading.Lock()
        self._due = threading.Condition(lock)
        self._followers = threading.Condition(lock)
        self._heap: list[_Due] = []
        self._sequence = itertools.count()
        self._has_leader = False
        self._num_idle = 0
        self._is_closed = False
        self._here = threading.local()

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is a callable that this object runs."""
        return hasattr(self._here, "is_own")

    def call_at(self, due_s: float, run: Callable[[], None]) -> None:
        """Run at `due_s` of `perf_counter`, never before, on a thread of its own."""
        with self._due:
            is_first = not self._heap or due_s < self._heap[0][0]
            heapq.heappush(self._heap, (due_s, next(self._sequence), run))
            if not self._has_leader:
                self._appoint()
            elif is_first:
                self._due.notify()

    def close(self) -> None:
        """Forget what is not due yet and let the threads end."""
        with self._due:
            self._is_closed = True
            self._heap.clear()
            self._due.notify_all()
            self._followers.notify_all()

    def _appoint(self) -> None:
        if self._num_idle:
            self._followers.notify()
        else:
            threading.Thread(target=self._serve, name="link", daemon=True).start()

    def _serve(self) -> None:
        self._here.is_own = True
        while True:
            with self._due:
                due = self._lead()
            if due is None:
                return
            due_s, _, run = due
            sleep_until(due_s, early_s=self._early_s)
            run()

    def _lead(self) -> _Due | None:
        """Wait to lead, then until something is almost due; None when all is over."""
        while self._has_leader or not self._heap:
            if self._is_closed:
                return None
            self._num_idle += 1
            self._followers.wait()
            self._num_idle -= 1
        self._has_leader = True
        try:
            while self._heap:
                left_s = self._heap[0][0] - self._early_s - perf_counter()
                if left_s <= 0:
                    return heapq.heappop(self._heap)
                self._due.wait(left_s)
            return None  # closed meanwhile
        finally:
            self._has_leader = False
            if self._heap:
                self._appoint()
