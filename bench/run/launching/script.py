"""A user's own program as a trial: its command in a process of its own, heard through its hook."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.measure.messages import Failure, Stage, StepsSoFar, TrialRequest, encode
from bench.run.launching.child import OnMessage, Outcome, run_command
from gapbench_start import FOLDER

GRACE_S = 10.0
"""For a program to end after its window: it may write a checkpoint or close a logger."""


def run_script(
    request: TrialRequest,
    *,
    timeout_s: float,
    on_start: Callable[[int], None],
    on_message: OnMessage,
) -> Outcome:
    """Run the program until its window is over, and say what became of it.

    Its output goes to standard error while it runs. Its environment is the user's, with the
    trial's folder in it, and with what torchrun would set where ranks are modelled. Threads are
    those that it takes by itself, or those that were asked for.
    """
    script = request.config.script
    assert script is not None
    stages = ["start"]

    def note(message: Stage | StepsSoFar) -> None:
        if isinstance(message, Stage):
            stages.append(message.name)
        on_message(message)

    folder = Path(tempfile.mkdtemp(prefix="bench-wrap-"))
    try:
        (folder / "request.json").write_bytes(encode(request))
        os.mkfifo(folder / "messages")
        receive = os.open(folder / "messages", os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(receive, True)
        outcome = run_command(
            request.command,
            environment=_environment(request, folder=folder),
            pipe=(receive, os.open(folder / "messages", os.O_WRONLY)),
            request=None,
            timeout_s=timeout_s,
            grace_s=timeout_s if script.runs_to_end else GRACE_S,
            first_signal=signal.SIGINT,
            on_start=on_start,
            on_message=note,
            on_output=_echo,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _explained(outcome, request, stages=stages)


def _environment(request: TrialRequest, *, folder: Path) -> dict[str, str]:
    environment: dict[str, Any] = {**os.environ, FOLDER: str(folder)}
    script = request.config.script
    if script is not None and script.is_rank:
        from bench.wrap.rank_environment import rank_environment

        environment |= rank_environment(request.config.layout)
        environment.setdefault("OMP_NUM_THREADS", str(request.threads))
    if request.config.threads:
        environment["OMP_NUM_THREADS"] = str(request.config.threads)
    return environment


def _echo(chunk: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed standard error must not cost the run
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()


def _explained(outcome: Outcome, request: TrialRequest, *, stages: list[str]) -> Outcome:
    """Say of a program that ended without a result what it did, and what was waited for."""
    failure, script = outcome.failure, request.config.script
    assert script is not None
    if failure is None or failure.code not in ("crashed", "timeout"):
        return outcome
    mark = {"optimizer": "optimizer step", "forward": "forward without gradients"}
    waited = mark.get(script.step, script.step)
    seen = [one.removeprefix("first ") for one in stages if one.startswith("first ")]
    has = f"seen: {', '.join(seen)}" if seen else "none of the marks was seen"
    if "import" not in stages:
        has = (
            "it imported no torch that has gapbench beside it: install gapbench into the program's"
        )
        has += " environment, and leave TORCH_DEVICE_BACKEND_AUTOLOAD alone"
    if outcome.exit_code == 0 and failure.code == "crashed":
        detail = f"the program ended without a step; waited for: {waited}; {has}"
        return replace(outcome, failure=Failure(code="error", detail=detail))
    if failure.code == "timeout" and script.step not in seen:
        detail = f"{failure.detail}; waited for: {waited}; {has}; --step has other marks"
        return replace(outcome, failure=Failure(code="timeout", detail=detail))
    if (outcome.exit_code or 0) > 0:
        words = failure.detail.partition(": ")[2]
        detail = f"the program failed: {words}"
        return replace(outcome, failure=Failure(code="error", detail=detail))
    return outcome
