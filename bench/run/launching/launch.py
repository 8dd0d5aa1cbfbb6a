"""What a trial's processes are and get: one for a single device, an agent and ranks for several.

A trial on several devices of this machine is an agent's process with its ranks below; under
torchrun the ranks are there already. How a process is started, heard and ended is `child`.
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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from bench import discovery
from bench.core.errors import ExitCode, MeasurementError, UsageError
from bench.core.nouns import Config
from bench.devices.host import cpu
from bench.hardware.chip_limit import parse_chip_limit
from bench.measure.asking import ask, same_modules
from bench.measure.inspection import MIOPEN_FIND_MODE
from bench.measure.messages import Failure, LinkRequest, Post, RunEnd, TrialRequest, encode
from bench.measure.timing.limits import Limits
from bench.run.launching.child import OnMessage, Outcome, run_child
from bench.run.launching.cluster import world_of
from bench.run.planning.plan import Planned
from bench.run.record import RunFacts

RANK = "bench.measure.ranks.rank_trial"
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
IDLE_S = 5.0
"""Rest with the context open, to know the idle power."""


def make_request(planned: Planned, *, trial: int, limits: Limits, facts: RunFacts) -> TrialRequest:
    """Turn a planned configuration into what the trial's process is asked to do."""
    config, device = planned.config, facts.inspection.device
    workers = num_workers(planned, facts=facts)
    cores = facts.usable_cores
    if config.chip_limit:
        cores = min(cores, parse_chip_limit(config.chip_limit).cores or cores)
    is_fake = device.type == "fake"
    gives_power = bool({"power", "energy"} & set(device.telemetry))
    return TrialRequest(
        config=config,
        limits=limits,
        trial=trial,
        cpu_ids=() if is_fake else cpu.usable_cpu_ids(),
        threads=config.threads or max(1, cores // num_local_ranks(planned.config) - workers),
        workers=workers,
        idle_s=IDLE_S if gives_power and not limits.is_smoke else 0.0,
    )


def num_local_ranks(config: Config) -> int:
    """Processes of one trial that share this machine's cores."""
    if not config.needs_ranks:
        return 1
    world = world_of(os.environ)
    return config.layout.devices if world is None else world.num_local_ranks


def num_workers(planned: Planned, *, facts: RunFacts) -> int:
    """Loader processes of a rank: a quarter of its cores at an accelerator, one beside a CPU.

    Generated data is cut from memory in microseconds, so on a CPU it needs no process.
    """
    config = planned.config
    found = discovery.load(config.origin)
    if not found.phase(config.phase).is_training or config.data == "resident":
        return 0
    if config.workers is not None:
        return config.workers
    cores = facts.usable_cores // num_local_ranks(config)
    if facts.inspection.is_accelerator:
        return max(1, min(8, cores // 4))
    return 1 if config.data != "generated" and cores > 1 else 0


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
    if request.config.needs_ranks:
        return run_ranks(
            request,
            num_ranks=request.config.layout.devices,
            threads=request.threads,
            timeout_s=timeout_s,
            on_start=on_start,
            on_message=on_message,
        )
    return run_child(
        "bench.measure.trial",
        environment=child_environment(threads=request.threads),
        request=encode(request),
        timeout_s=timeout_s,
        on_start=on_start,
        on_message=on_message,
    )


def run_ranks(
    request: TrialRequest | LinkRequest,
    *,
    num_ranks: int,
    threads: int,
    timeout_s: float,
    on_message: OnMessage,
    on_start: Callable[[int], None] = lambda _pid: None,
) -> Outcome:
    """Run what is asked for in so many ranks on this machine; ends every one of them.

    Under torchrun the ranks are there already, and this process is the first of them.
    """
    world = world_of(os.environ)
    run = functools.partial(
        run_child, timeout_s=timeout_s, on_start=on_start, on_message=on_message
    )
    environment, sent = child_environment(threads=threads), encode(request)
    if world is not None:
        if world.num_ranks != num_ranks:
            raise UsageError(
                f"this is for {num_ranks} ranks and torchrun started {world.num_ranks}; "
                "start as many, or run it without torchrun"
            )
        return run(RANK, "lead", environment=environment, request=sent)
    with _rank_folder(sent) as folder:
        receive = os.open(folder / "messages", os.O_RDONLY | os.O_NONBLOCK)
        outcome = run(
            "bench.measure.ranks.rank_agent",
            str(folder),
            str(num_ranks),
            pipe=(receive, os.open(folder / "messages", os.O_WRONLY)),
            # gloo talks over the loopback, whatever the host's name, unless the user chose.
            environment={"GLOO_SOCKET_IFNAME": LOOPBACK, **environment},
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


def follow() -> int:
    """Another rank under torchrun: take part in all that rank 0 does, end with its exit code.

    Rank 0's trials write into the agent's store what is next. This process prints nothing.
    """
    environment = child_environment(threads=int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        for number in itertools.count(1):
            outcome = run_child(RANK, str(number), environment=environment)
            if isinstance(outcome.result, RunEnd):
                return outcome.result.code
            if outcome.last_stage == "start":
                break  # it had no word from rank 0: the store is gone, and with it the run
            if outcome.exit_code != 0:
                detail = f"rank {os.environ['RANK']}: {outcome.detail}"
                failure = Failure(code="crashed", detail=detail)
                _post(Post(number=number, key="failure", message=failure))
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.INVALID)


def end(code: int) -> None:
    """Rank 0: tell the others that the run is over, and with which exit code."""
    _post(Post(number=None, key="request", message=RunEnd(code=code)))


def _post(letter: Post) -> None:
    with contextlib.suppress(MeasurementError):  # without a store there is nobody left to tell
        ask(RANK, letter, kind=type(None), what="the store")
