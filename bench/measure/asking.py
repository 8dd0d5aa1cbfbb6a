"""Processes that measure: asked one question, pinned to cores, ended with their parent.

`ask` puts one question that needs torch, from a process that must not import it: on the child's
standard input, answered by its last line. `answer` is the child's side. What the child refuses is
raised here as it was there; a child that died is described by the last line that it wrote. Trials,
which report while they run, are started, heard and killed by `bench.run.launching.child`: each ends
when its standard input closes, and what its workload raised becomes a code that a row can carry.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from bench.core.errors import BenchError, ExitCode, MeasurementError, UsageError
from bench.measure.causes import cause_of, causes_of, last_words
from bench.measure.messages import Failure, decode, encode

LONGEST_S = 600.0
_OF_JOB = frozenset(
    f"{group}{what}"
    for group in ("", "LOCAL_", "GROUP_", "ROLE_")
    for what in ("RANK", "WORLD_SIZE")
) | {"ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"}
"""https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables"""
T = TypeVar("T")


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    answer: msgspec.Raw = msgspec.Raw(b"null")
    refusal: str | None = None
    exit_code: int = ExitCode.OK


def same_modules() -> dict[str, str]:
    """Environment in which a child process finds the modules that this process finds.

    `python -m` would look into the user's folder first, and a folder called workloads or a file
    called random.py there would stand in for ours. Of torchrun's variables, perhaps left over from
    a job that has ended, it has none: what reads them would wait for the other ranks.
    """
    inherited = {name: value for name, value in os.environ.items() if not is_of_job(name)}
    # MONAI imports matplotlib's pyplot: a notebook's backend is not there in a process of ours.
    inherited.pop("MATPLOTLIBRC", None)
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    return inherited | {"MPLBACKEND": "Agg", "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def is_of_job(name: str) -> bool:
    """Whether torchrun gives its ranks a variable of this name."""
    return name in _OF_JOB or name.startswith("TORCHELASTIC_")


def last_line_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a process ended with, by what it wrote to its standard error."""
    return last_words((done.stderr or "").encode()) or "it printed nothing"


def ask(
    module: str,
    question: object,
    *,
    kind: type[T],
    what: str,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = LONGEST_S,
) -> T:
    """Return what `python -m module` answers.

    `BenchError` with the child's words for what it refuses, after `what` for how it died.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=encode(question).decode(),
            capture_output=True,
            text=True,
            check=False,
            env=same_modules() if environment is None else environment,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{what}: not finished after {timeout_s:g} s") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise MeasurementError(f"{what}: {last_line_of(done)}")
    reply: _Reply = decode(lines[-1], _Reply)
    if reply.refusal is not None:
        is_usage = reply.exit_code == ExitCode.USAGE
        raise (UsageError if is_usage else MeasurementError)(reply.refusal)
    found: T = decode(bytes(reply.answer), kind)
    return found


def answer(work: Callable[[Any], object], kind: Any) -> NoReturn:
    """Answer the question on standard input, of that kind, and end the process."""
    try:
        given = work(decode(sys.stdin.readline(), kind))
        reply = _Reply(answer=msgspec.Raw(encode(given).strip()))
    except BenchError as error:
        reply = _Reply(refusal=str(error), exit_code=error.exit_code)
    print(msgspec.json.encode(reply).decode())
    leave(0)


def pin(cpu_ids: Sequence[int]) -> None:
    """Run on these cores only, where the system can; none leave the process where it is."""
    if cpu_ids and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpu_ids)


def end_with_parent(folder: Path | None = None) -> None:
    """From here on wait for standard input to close, then end this process, its own, the folder."""

    def wait() -> None:
        # Not through sys.stdin: its lock would be held when a loader worker is forked, and the
        # worker, which closes its copy of it, would wait for that lock for ever.
        while os.read(0, 1024):
            pass
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        # The trial leads a process group of its own: its loader workers end with it.
        if os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def leave(code: int) -> NoReturn:
    """End at once: the interpreter's teardown waits for loader workers and device contexts."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def failure_of(error: Exception, *, device: str) -> Failure:
    """Name the failure by code, with what was raised and what began it."""
    text, detail = str(error), cause_of(error)
    if isinstance(error, BenchError):
        is_whole = len(text.splitlines()) == 1  # a loader's worker puts its traceback into it
        return Failure(code=error.reason, detail=text if is_whole else detail)
    causes = causes_of(error)
    full: list[BaseException] = [one for one in causes if isinstance(one, MemoryError)]
    if device not in ("fake", "endpoint"):
        from bench.devices.torch.torch_adapter import is_out_of_memory

        full += filter(is_out_of_memory, causes)
    if full:
        return Failure(code="out_of_memory", detail=detail)
    if "torchvision" in text:
        from bench.devices.doctor.host_findings import TORCHVISION_FIX, torchvision_mismatch

        if (mismatch := torchvision_mismatch()) is not None:
            return Failure(code="error", detail=f"{mismatch}; {TORCHVISION_FIX}")
    is_lacking = any(isinstance(one, NotImplementedError) for one in causes)
    lacks_operator = is_lacking or "not implemented for" in text
    return Failure(code="unsupported_op" if lacks_operator else "error", detail=detail)


def peak_rss_bytes(usage: resource.struct_rusage) -> int:
    """Peak resident memory that the system's account of a process gives."""
    # Kilobytes on Linux, bytes on macOS: getrusage(2).
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
