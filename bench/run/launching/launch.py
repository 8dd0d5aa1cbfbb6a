"""What a trial's processes are and get: one for a single device, an agent and ranks for several.

A trial on several devices of this machine is an agent's process with its ranks below. Under
torchrun the ranks are there already, each started with the same command line: rank 0 runs the
command and writes rows, the others take part in its trials (`follow`). How a process is started,
heard and ended is `child`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from bench.core.errors import ExitCode, MeasurementError, UsageError
from bench.core.interrupts import held_back
from bench.core.nouns import Config, Layout
from bench.measure.asking import ask, is_of_job, leave, same_modules
from bench.measure.inspection import MIOPEN_FIND_MODE
from bench.measure.messages import Failure, LinkRequest, Post, RunEnd, TrialRequest, encode
from bench.run.launching.child import OnMessage, Outcome, run_child
from bench.run.launching.script import run_script
from bench.run.launching.torchrun import check_job, world_of
from bench.run.planning.request import RunRequest
from bench.workload import Phase

RANK = "bench.measure.ranks.rank_trial"
SERVED = "bench.serve.served_trial"
ENDPOINT = "bench.serve.endpoint.endpoint_trial"
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def num_sharing(layouts: Iterable[Layout], *, is_accelerator: bool) -> int:
    """Ranks among which this machine's cores are divided: those of the widest layout.

    On a CPU every rank is a share of the processor, whether it is there, modelled or replayed, and
    all rows of a sweep have that of the widest: an efficiency then compares nothing but the layout.
    """
    there = [one for one in layouts if not is_accelerator or one.mode in ("real", "throttled")]
    widest = max((one.devices for one in there), default=1)
    world = world_of(os.environ) if widest > 1 else None
    return widest if world is None else world.num_local_ranks


def threads_and_workers(
    asked: Config | RunRequest, phase: Phase, *, cores: int, is_accelerator: bool
) -> tuple[int, int]:
    """Compute threads and loader processes of a rank that has so many cores.

    Unasked, a quarter of its cores load at an accelerator; one beside a CPU, which for generated
    data, cut from memory in microseconds, needs none.
    """
    workers = asked.workers
    if not phase.is_training or asked.data == "resident":
        workers = 0
    elif workers is None and is_accelerator:
        workers = max(1, min(8, cores // 4))
    elif workers is None:
        workers = int(asked.data not in (None, "generated") and cores > 1)
    return asked.threads or max(1, cores - workers), workers


def child_environment(*, threads: int) -> dict[str, str]:
    """Environment of a trial: thread counts before torch is imported, no network, no surprises."""
    return {
        "MIOPEN_FIND_MODE": MIOPEN_FIND_MODE,  # a choice of the user's is left alone
        **same_modules(),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def run_trial(
    request: TrialRequest,
    *,
    timeout_s: float,
    on_start: Callable[[int], None],
    on_message: OnMessage,
) -> Outcome:
    """Run one trial to its end; `on_start` gets its process id, `on_message` what it says."""
    threads, layout = request.threads, request.config.layout
    run = functools.partial(
        run_child, timeout_s=timeout_s, on_start=on_start, on_message=on_message
    )
    if request.command:
        return run_script(request, timeout_s=timeout_s, on_start=on_start, on_message=on_message)
    if request.config.needs_ranks:
        return run_ranks(request, num_ranks=layout.devices, threads=threads, run=run)
    environment = child_environment(threads=threads)
    module = "bench.measure.trial" if request.config.serving is None else SERVED
    module = ENDPOINT if request.config.server else module
    return run(module, environment=environment, request=encode(request))


def run_ranks(
    request: TrialRequest | LinkRequest,
    *,
    num_ranks: int,
    threads: int,
    run: Callable[..., Outcome],
) -> Outcome:
    """Run what is asked for in so many ranks on this machine; ends every one of them.

    Under torchrun the ranks are there already, and this process is the first of them. `run` is
    `run_child` with its limit and its listeners.
    """
    world = world_of(os.environ)
    sent = encode(request)
    if world is not None:
        if world.num_ranks != num_ranks:
            raise UsageError(
                f"this is for {num_ranks} ranks and torchrun started {world.num_ranks}; "
                "start as many, or run it without torchrun"
            )
        return run(RANK, "lead", environment=job_environment(threads=threads), request=sent)
    with _rank_folder(sent) as folder:
        receive = os.open(folder / "messages", os.O_RDONLY | os.O_NONBLOCK)
        outcome = run(
            "bench.measure.ranks.rank_agent",
            str(folder),
            str(num_ranks),
            pipe=(receive, os.open(folder / "messages", os.O_WRONLY)),
            # gloo talks over the loopback, whatever the host's name, unless the user chose.
            environment={"GLOO_SOCKET_IFNAME": LOOPBACK, **child_environment(threads=threads)},
        )
    # The largest process of all, agent included: rank 0 shows its own in its row.
    return replace(outcome, rss_peak_bytes=None)


@contextlib.contextmanager
def _rank_folder(request: bytes) -> Iterator[Path]:
    """Make the folder that ranks on one machine share; on exit it is gone, with every rank.

    torch's agent starts each rank in a session of its own and hands no descriptors on: the request
    is a file, the pipe to the parent has a name, and every rank leaves its process id, so that one
    that ignores SIGTERM is ended too. Ranks also end when the parent does: all read its pipe.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-ranks-"))
    try:
        (folder / "request.json").write_bytes(request)
        os.mkfifo(folder / "messages")
        yield folder
    finally:
        for text in filter(None, (note.read_text() for note in folder.glob("*.pid"))):
            with contextlib.suppress(ProcessLookupError):  # ended, as it should have
                os.killpg(int(text), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


# Under torchrun ----------------------------------------------------------------------------------


def as_rank(work: Callable[[], int]) -> int:
    """Run the command in rank 0 of the job that torchrun's variables name; others take part in it.

    Without such a job it runs here alone. Only rank 0 shows how it ended: torchrun gives the first
    rank that fails as the cause.
    """
    world = world_of(os.environ)
    if world is None:
        return work()
    check_job(os.environ)
    if world.rank > 0:
        return follow()
    try:
        return work()
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            _post(Post(number=None, key="request", message=RunEnd()))


def job_environment(*, threads: int) -> dict[str, str]:
    """Environment of a process that is this rank."""
    of_job = {name: value for name, value in os.environ.items() if is_of_job(name)}
    return of_job | child_environment(threads=threads)


def follow() -> int:
    """Another rank under torchrun: take part in all that rank 0 does; what that gave, it shows.

    Rank 0's trials write into the agent's store what is next. This process prints nothing.
    """
    environment = job_environment(threads=int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        for number in itertools.count(1):
            outcome = run_child(RANK, str(number), environment=environment)
            if isinstance(outcome.result, RunEnd):
                # Where rank 0 failed, its agent ends this rank meanwhile: it has ended well.
                with held_back():
                    leave(int(ExitCode.OK))
            if outcome.last_stage == "start":
                break  # it had no word from rank 0: the store is gone, and with it the run
            if outcome.exit_code != 0:
                detail = f"rank {os.environ['RANK']}: {outcome.detail}"
                failure = Failure(code="crashed", detail=detail)
                _post(Post(number=number, key="failure", message=failure))
    except KeyboardInterrupt:
        return int(ExitCode.OK)  # by its agent, because rank 0 has failed or is interrupted too
    return int(ExitCode.INVALID)


def _post(letter: Post) -> None:
    environment = job_environment(threads=1)
    with contextlib.suppress(MeasurementError):  # without a store there is nobody left to tell
        ask(RANK, letter, kind=type(None), what="the store", environment=environment)
