"""Ask a process of its own: one question on its standard input, one answer as its last line.

For questions that need torch, asked by a process that must not import it. `ask` is the parent's
side, `answer` the child's. What the child refuses is raised here as it was there; a child that died
is described by the last line that it wrote. Trials, which report while they run, are
`bench.run.launching.child`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import msgspec

from bench.core.errors import BenchError, ExitCode, MeasurementError, UsageError
from bench.measure.ending import leave
from bench.measure.messages import decode, encode

LONGEST_S = 600.0
T = TypeVar("T")


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the child prints."""

    answer: msgspec.Raw = msgspec.Raw(b"null")
    refusal: str | None = None
    exit_code: int = ExitCode.OK


def same_modules() -> dict[str, str]:
    """Environment in which a child process finds the modules that this process finds.

    `python -m` would look into the user's folder first, and a folder called workloads or a file
    called random.py there would stand in for ours.
    """
    folders = [os.path.abspath(folder) for folder in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1"}


def last_line_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a process wrote to its standard error."""
    return ((done.stderr or "").strip().splitlines() or ["it printed nothing"])[-1][:300]


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
