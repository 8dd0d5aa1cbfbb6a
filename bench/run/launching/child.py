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
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from bench.measure.asking import peak_rss_bytes
from bench.measure.causes import LOG_BYTES, how_it_ended
from bench.measure.messages import (
    Answer,
    Failure,
    News,
    Result,
    Seen,
    ServedSoFar,
    Stage,
    StepsSoFar,
    Written,
    decode,
)

OnMessage = Callable[[News], None]
GRACE_S = 3.0
"""Between asking a process group to end and killing it."""
Ask = tuple[int, float]
"""A signal, and how long to wait for its effect."""
TERMINATE: Ask = (signal.SIGTERM, GRACE_S)
MAX_WAIT_S = 3600.0
"""At once: the system's own limit for a wait is some weeks."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a trial's process: a result or a failure, never both."""

    result: Result | None = None
    failure: Failure | None = None
    duration_s: float = 0.0
    rss_peak_bytes: int | None = None
    log: str = ""
    """The end of what it wrote, such as its traceback, or a crash's words."""
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
    **heard: Any,
) -> Outcome:
    """Run `python -m module` to its end and say what became of it, as `run_command` does.

    Its first argument is where it writes to. It reads the request from standard input, which stays
    open while we live.
    """
    receive, send = pipe or os.pipe()
    command = [sys.executable, "-m", module, str(send), *arguments]
    ends = receive, send
    return run_command(command, environment=environment, pipe=ends, request=request, **heard)


def run_command(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    pipe: tuple[int, int],
    request: bytes | None,
    timeout_s: float = math.inf,
    grace_s: float = GRACE_S,
    runs_to_end: bool = False,
    interrupts: Sequence[Ask] = (TERMINATE,),
    on_start: Callable[[int], None] = lambda _pid: None,
    on_message: OnMessage = lambda _message: None,
    shows_output: bool = False,
    end_rest: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a process to its end and say what became of it; `on_start` gets its process id.

    `pipe` has both ends of what it is heard through, closed when it has ended. Without a request
    it reads nothing. `grace_s` is its time to end by itself after its result; with `runs_to_end` it
    has all that is left of its limit. An interrupt of ours is handed on by `interrupts`, one after
    the other; a second one kills. With `shows_output` what it writes is heard while it writes it.
    `end_rest` ends what it has left behind outside its process group.
    """
    start_s = time.monotonic()
    receive, send = pipe
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if request is None else subprocess.PIPE,
                stdout=subprocess.PIPE if shows_output else log,
                stderr=subprocess.STDOUT if shows_output else log,
                pass_fds=(send,),
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            os.close(receive)
            detail = f"{command[0]} could not be started: {error.strerror}"
            return Outcome(failure=Failure(code="error", detail=detail))
        finally:
            os.close(send)
        output = _Output(process.stdout, on_message) if shows_output else None
        try:
            on_start(process.pid)
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # it died: its status says how
                    process.stdin.write(request or b"")
                    process.stdin.flush()
            end_s = start_s + timeout_s
            last, stage, in_time = _listen(receive, deadline_s=end_s, on_message=on_message)
            if runs_to_end and not isinstance(last, Failure):
                grace_s = max(grace_s, end_s - time.monotonic())
            rss_peak_bytes = _reap(process, wait_s=grace_s if in_time else 0.0)
        except BaseException:
            _end_group(process, asking=interrupts)
            raise
        finally:
            os.close(receive)
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # the child is gone
                    process.stdin.close()
            end_rest()
            if output is not None:
                output.thread.join(GRACE_S)
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - LOG_BYTES))
        written = log.read() if output is None else bytes(output.last)
        if last is None:
            last = _failure(process, stage, written, late_s=None if in_time else timeout_s)
        return Outcome(
            result=None if isinstance(last, Failure) else last,
            failure=last if isinstance(last, Failure) else None,
            log=written.decode(errors="replace").strip(),
            duration_s=time.monotonic() - start_s,
            rss_peak_bytes=rss_peak_bytes,
            last_stage=stage,
            exit_code=process.returncode,
        )


class _Output:
    """Reads what a process writes, shows it at once, and keeps the end of it."""

    def __init__(self, written: IO[bytes] | None, on_message: OnMessage) -> None:
        assert written is not None
        self._written = written
        self._on_message = on_message
        self.last = bytearray()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with self._written:
            while chunk := os.read(self._written.fileno(), LOG_BYTES):
                self.last += chunk
                del self.last[:-LOG_BYTES]
                self._on_message(Written(chunk))


def _listen(
    descriptor: int, *, deadline_s: float, on_message: OnMessage
) -> tuple[Result | Failure | None, str, bool]:
    """Return the last message if it came, the stage, and whether it ended in time."""
    stage, pending = "start", b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while (left_s := deadline_s - time.monotonic()) > 0:
            if not selector.select(min(left_s, MAX_WAIT_S)):
                continue
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return None, stage, True
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                message: Answer = decode(line, Answer)
                if not isinstance(message, Stage | StepsSoFar | ServedSoFar | Seen):
                    return message, stage, True
                stage = message.name if isinstance(message, Stage) else stage
                on_message(message)
    return None, stage, False


def _reap(process: subprocess.Popen[bytes], *, wait_s: float) -> int | None:
    deadline_s = time.monotonic() + wait_s
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


def _end_group(process: subprocess.Popen[bytes], *, asking: Sequence[Ask] = (TERMINATE,)) -> None:
    try:
        for number, wait_s in asking:
            _kill_group(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
                break
    finally:  # at once where a second interrupt comes
        _kill_group(process.pid, signal.SIGKILL)
        process.wait()


def _kill_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # all gone already
        os.killpg(group, number)


def _failure(
    process: subprocess.Popen[bytes], stage: str, log: bytes, *, late_s: float | None
) -> Failure:
    if late_s is not None:
        detail = f"not finished after {late_s:g} s, in stage {stage}"
        return Failure(code="timeout", detail=detail)
    how = how_it_ended(process.returncode, log=log)
    detail = f"the trial's process died in stage {stage}: {how}"
    return Failure(code="crashed", detail=detail)
