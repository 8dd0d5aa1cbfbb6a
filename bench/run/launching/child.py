"""One child process from its start to its end: the one place where a trial's death is reported.

Whatever happens in it (an exception, a signal, a hang, memory running out) comes back as an
`Outcome`; only the user's Ctrl-C is raised, after the child and its workers are gone.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

from bench.measure.asking import LAST_WORDS_BYTES, how_it_ended, last_line, peak_rss_bytes
from bench.measure.messages import Answer, Failure, Result, Stage, StepsSoFar, decode

OnMessage = Callable[[Stage | StepsSoFar], None]
GRACE_S = 3.0
"""Between asking a process group to end and killing it."""
MAX_WAIT_S = 3600.0
"""At once: the system's own limit for a wait is some weeks."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a trial's process: a result or a failure, never both."""

    result: Result | None = None
    failure: Failure | None = None
    duration_s: float = 0.0
    rss_peak_bytes: int | None = None
    last_stage: str = "start"
    exit_code: int | None = None

    @property
    def detail(self) -> str:
        """Why there is no result, in words."""
        return "" if self.failure is None else self.failure.detail


def run_child(
    module: str,
    *arguments: str,
    environment: Mapping[str, str],
    request: bytes = b"",
    pipe: tuple[int, int] | None = None,
    timeout_s: float = math.inf,
    on_start: Callable[[int], None] = lambda _pid: None,
    on_message: OnMessage = lambda _message: None,
) -> Outcome:
    """Run a process to its end and say what became of it; `on_start` gets its process id.

    Its first argument is where it writes to. It reads the request from standard input, which stays
    open while we live. `pipe` has both ends of what it is heard through, closed when it has ended.
    """
    start_s = time.monotonic()
    receive, send = pipe or os.pipe()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(send), *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(send,),
            env=environment,
            start_new_session=True,
        )
        os.close(send)
        listener = _Listener(receive, on_message=on_message)
        try:
            on_start(process.pid)
            _hand_over(process, request)
            in_time = listener.listen(deadline_s=start_s + timeout_s)
            rss_peak_bytes = _reap(process, in_time=in_time)
        except BaseException:
            _end_group(process)
            raise
        finally:
            os.close(receive)
            if process.stdin is not None:
                _close_quietly(process.stdin)
        last = listener.last
        if last is None:
            late_s = None if in_time else timeout_s
            last = _failure(process, listener.last_stage, log, late_s=late_s)
        return Outcome(
            result=None if isinstance(last, Failure) else last,
            failure=last if isinstance(last, Failure) else None,
            duration_s=time.monotonic() - start_s,
            rss_peak_bytes=rss_peak_bytes,
            last_stage=listener.last_stage,
            exit_code=process.returncode,
        )


class _Listener:
    """Reads JSON lines from the child until it closes the pipe or time is up."""

    def __init__(self, descriptor: int, *, on_message: OnMessage) -> None:
        self._descriptor = descriptor
        self._on_message = on_message
        self._pending = b""
        self.last: Result | Failure | None = None
        self.last_stage = "start"

    def listen(self, *, deadline_s: float) -> bool:
        """Return False when the deadline passed first."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while True:
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0:
                    return False
                if not selector.select(min(remaining_s, MAX_WAIT_S)):
                    continue
                chunk = os.read(self._descriptor, 1 << 16)
                if not chunk:
                    return True
                self._take(chunk)
                if self.last is not None:
                    return True

    def _take(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            message: Answer = decode(line, Answer)
            if isinstance(message, Stage):
                self.last_stage = message.name
            if isinstance(message, Stage | StepsSoFar):
                self._on_message(message)
            else:
                self.last = message


def _hand_over(process: subprocess.Popen[bytes], request: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died before reading; its status says how
        process.stdin.write(request)
        process.stdin.flush()


def _close_quietly(stream: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the child is gone
        stream.close()


def _reap(process: subprocess.Popen[bytes], *, in_time: bool) -> int | None:
    """Wait for the child, ending it if it does not; return its peak resident memory."""
    deadline_s = time.monotonic() + (GRACE_S if in_time else 0.0)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            _kill_group(process.pid, signal.SIGKILL)  # loader workers that outlived it
            return peak_rss_bytes(usage)
        if time.monotonic() >= deadline_s:
            _end_group(process)
            return None
        time.sleep(0.005)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the child and its workers to end, then make them."""
    _kill_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):  # then SIGKILL
        process.wait(GRACE_S)
    _kill_group(process.pid, signal.SIGKILL)
    process.wait()


def _kill_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # all gone already
        os.killpg(group, number)


def _failure(
    process: subprocess.Popen[bytes], stage: str, log: IO[bytes], *, late_s: float | None
) -> Failure:
    """Say how a child ended that did not: too late, or how it died and its last line."""
    if late_s is not None:
        detail = f"not finished after {late_s:g} s, in stage {stage}"
        return Failure(code="timeout", detail=detail)
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - LAST_WORDS_BYTES))
    how = how_it_ended(process.returncode, last_words=last_line(log.read()))
    detail = f"the trial's process died in stage {stage}: {how}"
    return Failure(code="crashed", detail=detail)
