"""The modelled link on a CPU: what is carried is complete no earlier than modelled.

Whoever waits for a collective sleeps until its end itself, which is exact to some 0.1 ms; only
futures (DDP, communication hooks) need a thread that completes them. A throttled link also waits
for the real collective, and the link is then busy until that was through.
"""

import threading
from collections.abc import Callable
from datetime import timedelta
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist

from bench.emulate.link.completions import Completions, measure_oversleep_s, sleep_until
from bench.emulate.link.serial_link import HOST_RESOLUTION_S, SerialLinks, level_of
from bench.emulate.replay import Issued, Moment, Recorder, Resolve

Move = Callable[[], Any]
"""Moves the data; returns the real work where there is one. None: nothing is to be moved."""


class HostLink:
    """Carries collectives over modelled links, on this process's clock."""

    resolution_s = HOST_RESOLUTION_S

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.early_s = measure_oversleep_s()
        self.completions = Completions(early_s=self.early_s)
        self._links = SerialLinks()
        self._lock = threading.Lock()

    @property
    def is_on_lane(self) -> bool:
        """Whether compute calls, and not the callback of something complete."""
        return not self.completions.is_own_thread

    def now(self) -> Moment:
        """Return the present moment."""
        return perf_counter()

    def begin_step(self) -> None:
        """Nothing to prepare: moments are read from the clock."""

    def end_step(self) -> Resolve:
        """Return what shows moments in seconds: they are noted as such."""
        return float

    def carry(
        self,
        issued: Issued,
        *,
        outputs: list[torch.Tensor],
        touched: Callable[[], list[torch.Tensor]],
        move: Move | None,
        is_async: bool,
    ) -> "HostWork":
        """Take the link for a collective whose input is ready now, and move its data."""
        now_s = perf_counter()
        level = level_of(issued.group)
        with self._lock:
            start_s, end_s = self._links.reserve(level, now_s=now_s, duration_s=issued.modelled_s)
        real = None if move is None else move()
        issued.ready, issued.start, issued.end = (now_s,), start_s, end_s
        issued.mark_end = perf_counter()
        return HostWork(self, issued, outputs=outputs, end_s=end_s, real=real)

    def was_later(self, issued: Issued, *, until_s: float) -> None:
        """Note that the real collective took longer than the modelled one."""
        with self._lock:
            self._links.extend(level_of(issued.group), until_s=until_s)
        issued.end = until_s

    def close(self) -> None:
        """End the threads."""
        self.completions.close()


class LinkWork(dist.Work):
    """A collective under way on a modelled link."""

    def __init__(
        self, link: Any, issued: Issued, *, outputs: list[torch.Tensor], future: Any = None
    ) -> None:
        super().__init__()
        self._link = link
        self._issued = issued
        self._outputs = outputs
        self._future = future

    def is_success(self) -> bool:
        """Whether it is complete: virtual ranks never fail."""
        return self.is_completed()

    def result(self) -> list[torch.Tensor]:
        """Return the output tensors."""
        return self._outputs

    def synchronize(self) -> None:
        """Wait: on a CPU there is no stream that could wait instead."""
        self.wait()


class HostWork(LinkWork):
    """`wait` sleeps until its end, a future is completed then."""

    def __init__(
        self,
        link: HostLink,
        issued: Issued,
        *,
        outputs: list[torch.Tensor],
        end_s: float,
        real: Any,
    ) -> None:
        super().__init__(link, issued, outputs=outputs)
        self._end_s = end_s
        self._real = real

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Block until complete; virtual ranks never fail, so a timeout is only for the real op."""
        start_s = perf_counter()
        self._finish()
        if self._link.recorder.is_noting(self._issued) and self._link.is_on_lane:
            self._issued.waits.append((start_s, perf_counter()))
        return True

    def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """Return the future of the output tensors; asked again, the same."""
        if self._future is None:
            self._future = torch.futures.Future()
            self._issued.is_future_taken = True
            note_drain(self._link)
            if self._is_over:
                self._complete()
            else:
                self._link.completions.call_at(self._end_s, self._complete)
        return self._future  # type: ignore[no-any-return]

    def is_completed(self) -> bool:
        """Whether a wait would return at once."""
        return self._is_over and (self._real is None or self._real.is_completed())

    @property
    def _is_over(self) -> bool:
        return perf_counter() >= self._end_s

    def _finish(self) -> None:
        real, self._real = self._real, None
        if real is not None:
            is_under_way = not real.is_completed()
            real.wait()
            through_s = perf_counter()
            if is_under_way and through_s > self._end_s:
                self._link.was_later(self._issued, until_s=through_s)
        sleep_until(self._end_s, early_s=self._link.early_s)

    def _complete(self) -> None:
        try:
            self._finish()
        except RuntimeError as error:  # a rank was lost: the error goes to those that wait
            self._future.set_exception(error)
        else:
            self._issued.seen = perf_counter()
            self._future.set_result(self._outputs)


def note_drain(link: Any) -> None:
    """Have it noted when the running backward pass waits for the futures taken in it.

    DDP queues its waiting as a callback of the pass when its last bucket is issued. A callback
    queued before, when the first future is taken, runs before that, and one queued by it after.
    """
    task = torch._C._current_graph_task_id()
    recorder: Recorder = link.recorder
    if not recorder.is_on or task < 0 or not recorder.is_first_in(task):
        return
    queue = torch.autograd.Variable._execution_engine.queue_callback

    def before() -> None:
        start = link.now()
        queue(lambda: recorder.notes.drained.append((start, link.now())))

    queue(before)
