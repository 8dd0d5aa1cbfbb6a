"""A user's own program as a trial: its command in a process of its own, heard through its hook."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measure.messages import News, Seen, Stage, TrialRequest, encode
from bench.run.launching.child import TERMINATE, OnMessage, Outcome, run_command
from bench.run.launching.script_ends import Heard, explained
from bench.wrap.rank_environment import rank_environment
from gapbench_start import FOLDER

GRACE_S = 10.0
"""For a program to end after its window, or an interrupt: it may write a checkpoint."""
_OURS = "BENCH_WRAP_"


def run_script(
    request: TrialRequest,
    *,
    timeout_s: float,
    on_start: Callable[[int], None],
    on_message: OnMessage,
) -> Outcome:
    """Run the program until its window is over, and say what became of it.

    What it writes is heard while it runs. Its environment is the user's, with the trial's folder in
    it, and with what torchrun would set where ranks are modelled. Threads are those that it takes
    by itself, or those that were asked for. A Ctrl-C is the program's first.
    """
    script = request.config.script
    assert script is not None
    heard = Heard()

    def listen(message: News) -> None:
        if isinstance(message, Seen):
            heard.add(message)
            return
        if isinstance(message, Stage):
            heard.stages.append(message.name)
        on_message(message)

    with _trial_folder(request) as (folder, end_rest):
        receive = os.open(folder / "messages", os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(receive, True)
        outcome = run_command(
            request.command,
            environment=_environment(request, folder=folder),
            pipe=(receive, os.open(folder / "messages", os.O_WRONLY)),
            request=None,
            timeout_s=timeout_s,
            grace_s=GRACE_S,
            runs_to_end=script.runs_to_end and not request.is_look,
            interrupts=((signal.SIGINT, GRACE_S), TERMINATE),
            on_start=on_start,
            on_message=listen,
            shows_output=True,
            end_rest=end_rest,
        )
    return explained(outcome, request, heard=heard)


@contextlib.contextmanager
def _trial_folder(request: TrialRequest) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Make what the start hook finds: the request, the way here, and what shows that we live.

    Also returned is what ends every process that has found it.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-wrap-"))
    try:
        (folder / "request.json").write_bytes(encode(request))
        os.mkfifo(folder / "messages")
        os.mkfifo(folder / "alive")
        # Both ends, so that it opens at once and is never without a reader; nothing is written.
        with open(os.open(folder / "alive", os.O_RDWR), "rb", buffering=0) as alive:
            yield folder, alive.close
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(request: TrialRequest, *, folder: Path) -> dict[str, str]:
    """Return the program's: ours without the flags of `bench wrap`, which are for one bench."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(_OURS)}
    environment[FOLDER] = str(folder)
    environment.setdefault("PYTHONUNBUFFERED", "1")  # a pipe would show lines late
    script = request.config.script
    if script is not None and script.is_rank:
        environment |= rank_environment(request.config.layout)
        environment.setdefault("OMP_NUM_THREADS", str(request.threads))
    if request.config.threads:
        environment["OMP_NUM_THREADS"] = str(request.config.threads)
    return environment
