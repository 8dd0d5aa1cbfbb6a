"""Measures the process of a user's program that trains: between the ends of its steps.

The loops of `bench run` time the steps: they ask for one by `yield`, and each end of a step goes
on with them. The first process of the trial that ends a step is the one measured, the rank 0 of a
job; other ranks end when it does, and launchers and a loader's workers are left alone.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import util
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from bench.core.errors import BenchError
from bench.core.nouns import Script
from bench.measure.asking import failure_of, leave
from bench.measure.engine.engine import Stepping, StepsEndedError
from bench.measure.messages import Failure, Messages, TrialRequest, decode
from bench.wrap.common_end import CommonEnd
from bench.wrap.held_back_ranks import HeldBackRanks
from bench.wrap.steps.happened import Usual
from bench.wrap.steps.happenings import Happenings
from bench.wrap.steps.marks import Marks
from bench.wrap.virtual_ranks import VirtualRanks

if TYPE_CHECKING:
    from bench.measure.operator_count import OperatorCounter

REQUEST, PIPE, CLAIM = "request.json", "messages", "measured"
"""Names in the trial's folder: what is asked, the way to the parent, whose steps count."""


class Watch:
    """This process's part in a wrapped trial."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.request: TrialRequest = decode((folder / REQUEST).read_bytes(), TrialRequest)
        self.script = self.request.config.script or Script()
        self._pid = os.getpid()
        self._end = CommonEnd(folder)
        self.messages = Messages(os.open(folder / PIPE, os.O_WRONLY))
        self.messages.stage("import")
        self.happenings = Happenings()
        config = self.request.config
        kind = HeldBackRanks if config.layout.mode == "throttled" else VirtualRanks
        self.ranks = kind(config, runs=self._run_rank)
        self._is_claimed: bool | None = None
        self._loop: Stepping[None] | None = None
        self._is_over = False
        self.usual = Usual()
        self.num_steps = 0
        self._error: BaseException | None = None
        self._leaving: SystemExit | None = None
        """What ends one of several real ranks: with it its frames are kept, and what they hold."""
        self.counter: OperatorCounter | None = None
        """Of the step that is counted now."""
        if self.request.is_look:
            from bench.wrap.look import watch_updates

            watch_updates(self)
        self.marks = Marks(
            self.script.step,
            on_step=self._step_ended,
            on_first=lambda kind: self.messages.stage(f"first {kind}"),
            sees=self.happenings,
        )
        hook = sys.excepthook
        sys.excepthook = lambda *error: self._note_error(hook, *error)
        atexit.register(self._skip_teardown)  # called last
        atexit.register(self._program_ended)
        if multiprocessing.parent_process() is not None:  # whose children run no atexit handlers
            util.Finalize(None, self._program_ended, exitpriority=0)

    # Steps ---------------------------------------------------------------------------------------

    def _step_ended(self, device: torch.device | None) -> None:
        if self._is_claimed is None:
            self._is_claimed = self._claim()
        if self._pid != os.getpid():
            return
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

    def _claim(self) -> bool:
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
            return looking(self, device_in_use(device, parameters=self.marks.parameters.values()))
        return measuring_script(self, torch.device(self.request.config.device))

    # Ends ----------------------------------------------------------------------------------------

    def _end_program(self) -> None:
        """End the program, in all of its ranks after the same step."""
        if self.script.runs_to_end and not self.request.is_look:
            return
        self._end.decide(num_ranks=self.ranks.num_real)
        if self._end.is_due():
            self._leave()

    def _leave(self) -> None:
        """End this process as politely as Python can: `finally` and atexit handlers run."""
        if threading.current_thread() is threading.main_thread():
            leaving = SystemExit(0)
            self._leaving = leaving if self.ranks.num_real > 1 else None
            raise leaving
        import _thread

        _thread.interrupt_main()

    def _skip_teardown(self) -> None:
        """End a real rank here: to destroy a DDP waits for a thread that waits for Python."""
        if self._leaving is not None:
            leave(0)

    def _run_rank(self, rank: Callable[[], None]) -> None:
        """Do what a process does that the program started as its rank 0, perhaps forked."""
        self._pid = os.getpid()
        try:
            rank()
        except Exception as error:  # the process reports it to its parent, and not to `excepthook`
            self._error = error
            raise
        finally:
            self._program_ended()

    def _fail(self, error: Exception) -> None:
        self.messages.send(failure_of(error, device=self.request.config.device))
        self._is_over = True
        self._end_program()

    def _note_error(
        self,
        shown: Callable[..., Any],
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        self._error = error
        shown(kind, error, trace)

    def _program_ended(self) -> None:
        """The program ends by itself: give what there is, or say what was missing."""
        if self._pid != os.getpid() or self._is_over:
            return
        self._is_over = True
        if isinstance(self._error, Exception):
            self.messages.send(failure_of(self._error, device=self.request.config.device))
        elif self._is_claimed:
            if self._loop is None:
                self.messages.send(failure_of(self.ranks.alone(), device=""))
                return
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


def begin(folder: str) -> None:
    """Watch this process."""
    Watch(Path(folder))
