"""Measures the process of a user's program that trains: between the ends of its steps.

The loops of `bench run` time the steps: they ask for one by `yield`, and each end of a step goes
on with them. The first process of the trial that ends a step is the one measured, the rank 0 of a
job; other ranks end when it does, and launchers and a loader's workers are left alone.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import util
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.utils.data import get_worker_info

from bench.core.errors import BenchError
from bench.core.nouns import Script
from bench.measure.asking import failure_of, leave
from bench.measure.engine.engine import Stepping, StepsEndedError
from bench.measure.messages import Failure, Messages, Seen, TrialRequest, decode
from bench.wrap.common_end import CommonEnd
from bench.wrap.held_back_ranks import HeldBackRanks
from bench.wrap.steps.happened import Usual
from bench.wrap.steps.happenings import Happenings
from bench.wrap.steps.marks import Marks
from bench.wrap.virtual_ranks import VirtualRanks

if TYPE_CHECKING:
    from bench.measure.operator_count import OperatorCounter

REQUEST, PIPE, CLAIM, ALIVE = "request.json", "messages", "measured", "alive"
"""Names in the trial's folder: what is asked, the way to the parent, whose steps count, and what
the parent holds open while it lives."""
TELL_EVERY_S = 1.0


class Watch:
    """This process's part in a wrapped trial."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.request: TrialRequest = decode((folder / REQUEST).read_bytes(), TrialRequest)
        self.script = self.request.config.script or Script()
        self._end = CommonEnd(folder)
        self.messages = Messages(_way_to_parent(folder))
        _end_with_parent(folder)
        self.messages.stage("import")
        self.happenings = Happenings()
        config = self.request.config
        kind = HeldBackRanks if config.layout.mode == "throttled" else VirtualRanks
        self.ranks = kind(config, runs=self._run_rank)
        self._is_claimed: bool | None = None
        self._loop: Stepping[None] | None = None
        self._is_over = False
        self._goes_on = self.script.runs_to_end and not self.request.is_look
        self.usual = Usual()
        self.num_steps = 0
        self._leaving: SystemExit | None = None
        """What ends one of several real ranks: with it its frames are kept, and what they hold."""
        self._told_s = 0.0
        self.counter: OperatorCounter | None = None
        """Of the step that is counted now."""
        if self.request.is_look:
            from bench.wrap.look import watch_updates

            watch_updates(self)
        self.marks = Marks(
            self.script.step,
            on_step=self._step_ended,
            on_seen=self._tell_marks,
            sees=self.happenings,
        )
        atexit.register(self._skip_teardown)  # called last
        atexit.register(self._program_ended)
        os.register_at_fork(after_in_child=self._forked)
        util.register_after_fork(self, Watch._end_with_process)

    # Steps ---------------------------------------------------------------------------------------

    def _step_ended(self, device: torch.device | None) -> None:
        if self._is_claimed is None:
            self._is_claimed = self._claim()
        self._end.count_step()
        if not self._is_claimed:
            if self._end.is_due():
                self._leave()
            return
        happened = self.happenings.take()
        if self._is_over:
            self._end_program()
            return
        try:
            if self._loop is None:  # what came before the first end is no whole step
                if not self.ranks.are_ready():
                    return
                self._loop = self._make_loop(device)
                next(self._loop)
            else:
                self.num_steps += 1
                self.last = happened
                self._loop.send(None)
        except StopIteration:
            self._is_over = True
            self._end_program()
        except BenchError as error:
            self._fail(error)
        except Exception as error:  # ours: it must not look as if the program had raised it
            traceback.print_exc()
            self._fail(error)

    def _tell_marks(self) -> None:
        """Report what could have been steps, once a second until the first."""
        now_s = perf_counter()
        if self.marks.seen[self.script.step] == 1 or now_s - self._told_s > TELL_EVERY_S:
            self._told_s = now_s
            self._report()

    def _report(self, failure: Failure | None = None) -> None:
        num_backward = self.happenings.now.num_backward
        marks = {**self.marks.seen, "backward": num_backward}
        self.messages.send(Seen(marks=marks, failure=failure))

    def _forked(self) -> None:
        """In a child of a fork: it may be the one that trains, if its parent does not."""
        self._is_claimed = None if self._is_claimed is None else False
        self.happenings.take()

    def _end_with_process(self) -> None:
        """In a child of multiprocessing, which runs no atexit handlers."""
        util.Finalize(None, self._program_ended, exitpriority=0)

    def _claim(self) -> bool:
        if get_worker_info() is not None:
            return False
        rank = dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))
        if rank != 0:
            return False
        try:
            os.close(os.open(self._folder / CLAIM, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def _make_loop(self, device: torch.device | None) -> Stepping[None]:
        from bench.wrap.look import device_in_use, looking
        from bench.wrap.script_trial import measuring_script

        if self.request.is_look:
            self.messages.stage("look")
            return looking(self, device_in_use(device, parameters=self.marks.parameters))
        return measuring_script(self, torch.device(self.request.config.device))

    # Ends ----------------------------------------------------------------------------------------

    def _end_program(self) -> None:
        """End the program, in all of its ranks after the same step."""
        if self._goes_on:
            return
        self._end.decide(num_ranks=self.ranks.num_real)
        if self._end.is_due():
            self._leave()

    def _leave(self) -> None:
        """End this process as politely as Python can: `finally` and atexit handlers run."""
        main = threading.main_thread()
        if threading.current_thread() is not main and main.ident is not None:
            signal.pthread_kill(main.ident, signal.SIGINT)
        leaving = SystemExit(0)
        self._leaving = leaving if self.ranks.num_real > 1 else None
        raise leaving

    def _skip_teardown(self) -> None:
        """End a real rank here: to destroy a DDP waits for a thread that waits for Python."""
        if self._leaving is not None and _uncaught() is None:
            leave(0)

    def _run_rank(self, rank: Callable[[], None]) -> None:
        """Do what a process does that the program started as its rank 0, perhaps forked."""
        try:
            rank()
        finally:
            self._program_ended()

    def _fail(self, error: Exception) -> None:
        self.messages.send(failure_of(error, device=self.request.config.device))
        self._is_over, self._goes_on = True, False
        self._end_program()

    def _program_ended(self) -> None:
        """The program ends by itself: give what there is, or say what was missing."""
        if self._is_over:
            return
        self._is_over = True
        with contextlib.suppress(OSError):  # the parent is gone, or has what it wants
            if (error := _uncaught()) is not None:
                self._tell_error(error)
            elif self._is_claimed:
                self._give_what_there_is()
            elif self.marks.seen:
                self._report()

    def _tell_error(self, error: Exception) -> None:
        failure = failure_of(error, device=self.request.config.device)
        if isinstance(error, BenchError):  # what we refuse, raised where the program asked for it
            self.messages.send(failure)
        else:
            self._report(failure)

    def _give_what_there_is(self) -> None:
        if self._loop is None:
            self.messages.send(failure_of(self.ranks.alone(), device=""))
            return
        self.messages.stage("ended")
        try:
            self._loop.throw(StepsEndedError())
        except StopIteration:
            return
        except StepsEndedError:
            self._send_too_few()
        except Exception as error:
            traceback.print_exc()
            self.messages.send(failure_of(error, device=self.request.config.device))

    def _send_too_few(self) -> None:
        words = f"the program ended after {self.num_steps + 1} steps, before it was warm"
        more = "give it more to do, such as more epochs, or take --profile smoke"
        self.messages.send(Failure(code="error", detail=f"{words}; {more}"))


def _way_to_parent(folder: Path) -> int:
    descriptor = os.open(folder / PIPE, os.O_WRONLY | os.O_NONBLOCK)  # raises where nobody listens
    os.set_blocking(descriptor, True)
    return descriptor


def _end_with_parent(folder: Path) -> None:
    """Have the system kill this process group when the parent is gone.

    It does when the pipe has lost its writer, with no thread to that end: children of a fork would
    have none. Launchers' ranks are in sessions of their own, and each comes by here.
    """
    descriptor = os.open(folder / ALIVE, os.O_RDONLY | os.O_NONBLOCK)
    if hasattr(fcntl, "F_SETSIG"):  # Linux: https://man7.org/linux/man-pages/man2/fcntl.2.html
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpgrp())
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)


def _uncaught() -> Exception | None:
    """Return what ends the program, where that is an exception: also one that became an exit."""
    error = sys.exc_info()[1] or getattr(sys, "last_value", None)
    if isinstance(error, SystemExit) and error.code:
        error = error.__context__
    return error if isinstance(error, Exception) else None


def begin(folder: str) -> None:
    """Watch this process."""
    Watch(Path(folder))
