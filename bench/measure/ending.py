"""How a process that measures ends, and in which words a row reports it.

Each is started with a standard input that stays open as long as its parent lives. It ends when that
closes, leaves at once when it is done, and whatever the workload raised becomes a code that a row
can carry. What a parent says of a process that only died is here too, for it to be said alike of a
trial and of a rank. Starting, waiting and killing are the parent's: `bench.run.launching.child`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from bench.core.errors import BenchError
from bench.measure.messages import Failure

if TYPE_CHECKING:
    import resource

LAST_WORDS_BYTES = 4096
"""How much of the end of a log the last line is looked for in."""


def exit_with_parent() -> None:
    """Wait for standard input to close, then end this process and its own."""
    # Not through sys.stdin: its lock would be held when a loader worker is forked, and the worker,
    # which closes its copy of it, would wait for that lock for ever.
    while os.read(0, 1024):
        pass
    # The trial leads a process group of its own: its loader workers end with it.
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(3)


def leave(code: int) -> NoReturn:
    """End at once: the interpreter's teardown waits for loader workers and device contexts."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def failure_of(error: Exception, *, device: str) -> Failure:
    """Name the failure by code, with its type and the first line of its message."""
    if isinstance(error, BenchError):
        return Failure(code=error.reason, detail=str(error))
    lines = str(error).strip().splitlines() or [""]
    detail = f"{type(error).__name__}: {lines[0]}"[:500]
    if isinstance(error, MemoryError):
        return Failure(code="out_of_memory", detail=detail)
    if device != "fake":
        from bench.devices.torch.torch_adapter import is_out_of_memory

        if is_out_of_memory(error):
            return Failure(code="out_of_memory", detail=detail)
    text = str(error)
    if "torchvision" in text:
        from bench.devices.doctor.host_findings import TORCHVISION_FIX, torchvision_mismatch

        if (mismatch := torchvision_mismatch()) is not None:
            return Failure(code="error", detail=f"{mismatch}; {TORCHVISION_FIX}")
    lacks_operator = isinstance(error, NotImplementedError) or "not implemented for" in text
    return Failure(code="unsupported_op" if lacks_operator else "error", detail=detail)


def how_it_ended(code: int, *, last_words: str) -> str:
    """Say how a process died: its exit code, or minus the signal, and the last line it wrote."""
    how = f"exit code {code}"
    if code < 0:
        how = f"signal {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += " (killed from outside; often the system was out of memory)"
    return f"{how}; last line: {last_words}" if last_words else how


def last_line(log: bytes) -> str:
    """Return the last line near the end of a log that is not blank, cut short; '' for none."""
    text = log[-LAST_WORDS_BYTES:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def peak_rss_bytes(usage: resource.struct_rusage) -> int:
    """Peak resident memory that the system's account of a process gives."""
    # Kilobytes on Linux, bytes on macOS: getrusage(2).
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
