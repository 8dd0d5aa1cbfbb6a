"""One child process from its start to its end: the one place where a trial's death is told.

Whatever happens in it (an exception, a signal, a hang, memory running out) comes back as an
`Outcome`; only the user's Ctrl-C is raised, after the child and its workers are gone. What to start
is said by a `Child`: for trials and ranks `bench.run.launch` makes it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from bench.measure.ending import LAST_WORDS_BYTES, how_it_ended, last_line, peak_rss_bytes
from bench.measure.messages import Answer, Failure, Result, Stage, StepsSoFar, decode

OnMessage = Callable[[Stage | StepsSoFar], None]
GRACE_S = 3.0
"""Between asking a process group to end and killing it."""
MAX_WAIT_S = 3600.0
"""At once: the system's own limit for a wait is some weeks."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """How to start a process and hear it. Both ends of the pipe are closed when it has ended."""

    module: str
    arguments: tuple[str, ...]
    receive: int
    send: int
    environment: Mapping[str, str]
    request: bytes = b""
    """What it reads from standard input, which then stays open while we live."""


def piped_child(
    module: str, *more: str, environment: Mapping[str, str], request: bytes = b""
) -> Child:
    """Return a child with a pipe of its own; its first argument is the end that it writes to."""
    receive, send = os.pipe()
    return Child(
        module=module,
        arguments=(str(send), *more),
        receive=receive,
        send=send,
        environment=environment,
        request=request,
    )


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
    child: Child,
    *,
    timeout_s: float,
    on_start: Callable[[int], None],
    on_message: OnMessage,
) -> Outcome:
    """Run the child to its end and say what became of it."""
    start_s = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", child.module, *child.arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(child.send,),
            env=child.environment,
            start_new_session=True,
        )
        os.close(child.send)
        listener = _Listener(child.receive, on_message=on_message)
        try:
            on_start(process.pid)
            _hand_over(process, child.request)
            in_time = listener.listen(deadline_s=start_s + timeout_s)
            rss_peak_bytes = _reap(process, in_time=in_time)
        except BaseException:
            _end_group(process)
            raise
        finally:
            os.close(child.receive)
            if process.stdin is not None:
                _close_quietly(process.stdin)
        return _outcome(
            listener,
            process,
            in_time=in_time,
            timeout_s=timeout_s,
            log=log,
            duration_s=time.monotonic() - start_s,
            rss_peak_bytes=rss_peak_bytes,
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


def _outcome(
    listener: _Listener,
    process: subprocess.Popen[bytes],
    *,
    in_time: bool,
    timeout_s: float,
    log: IO[bytes],
    duration_s: float,
    rss_peak_bytes: int | None,
) -> Outcome:
    common: dict[str, Any] = {
        "duration_s": duration_s,
        "rss_peak_bytes": rss_peak_bytes,
        "last_stage": listener.last_stage,
        "exit_code": process.returncode,
    }
    if isinstance(listener.last, Failure):
        return Outcome(failure=listener.last, **common)
    if listener.last is not None:
        return Outcome(result=listener.last, **common)
    if not in_time:
        detail = f"not finished after {timeout_s:g} s, in stage {listener.last_stage}"
        return Outcome(failure=Failure(code="timeout", detail=detail), **common)
    detail = _death(process, listener.last_stage, log)
    return Outcome(failure=Failure(code="crashed", detail=detail), **common)


def _death(process: subprocess.Popen[bytes], stage: str, log: IO[bytes]) -> str:
    """Say how the child died, with the last line it wrote."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - LAST_WORDS_BYTES))
    how = how_it_ended(process.returncode, last_words=last_line(log.read()))
    return f"the trial's process died in stage {stage}: {how}"
