"""One rank of many under the user's `torchrun`: rank 0 runs the command, the others follow it.

Every rank is started with the same command line. Rank 0 plans, measures its part, decides and
writes rows; each of its trials tells the others through the agent's store what is next. They print
nothing and end with rank 0's exit code. No torch is imported here: what talks to the store is a
process of `bench.measure.rank_trial`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from bench.core.errors import ExitCode, MeasurementError, UsageError
from bench.measure.asking import ask
from bench.measure.messages import Failure, Post, RunEnd

_JOB_VARIABLES = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class World:
    """The ranks that torchrun started, as one of them sees it."""

    rank: int
    num_ranks: int
    num_local_ranks: int


def world_of(environment: Mapping[str, str]) -> World | None:
    """Return the world that torchrun put this process into; None for one process alone.

    RANK and WORLD_SIZE by themselves say nothing: schedulers set them for other purposes.
    """
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    world = World(
        rank=int(environment["RANK"]),
        num_ranks=int(environment["WORLD_SIZE"]),
        num_local_ranks=int(environment["LOCAL_WORLD_SIZE"]),
    )
    return world if world.num_ranks > 1 else None


def sibling_pids(environment: Mapping[str, str]) -> list[int]:
    """Return the processes of this machine that belong to the same torchrun job; [] without one.

    They are not below this process: each is a child of its agent, and agents may be several.
    """
    if world_of(environment) is None:
        return []
    import psutil

    job = {name: environment.get(name) for name in _JOB_VARIABLES}
    return [
        process.pid
        for process in psutil.process_iter(["environ"])
        if job.items() <= (process.info["environ"] or {}).items()
    ]


def devices_under(world: World | None, *, devices: tuple[int, ...]) -> tuple[int, ...]:
    """Return --devices as torchrun decides it; `UsageError` when the user asked for others."""
    if world is None:
        return devices
    if devices not in ((), (world.num_ranks,)):
        asked = ",".join(map(str, devices))
        raise UsageError(
            f"--devices {asked} does not go with torchrun, which started {world.num_ranks} ranks; "
            "leave --devices out, or start as many ranks"
        )
    return (world.num_ranks,)


def mode_under(world: World | None, *, mode: str | None, has_link: bool) -> str | None:
    """Return --mode; under torchrun the ranks are real, so a link throttles them.

    Raises `UsageError` where one rank would work and the others only wait.
    """
    if world is None:
        return mode
    if mode in ("emulated", "simulated"):
        raise UsageError(
            f"--mode {mode} takes one process, and torchrun started {world.num_ranks}; "
            "leave torchrun out, or use --mode throttled"
        )
    return "throttled" if mode is None and has_link else mode


def follow() -> int:
    """Take part in all that rank 0 does, and return the code that it ends with."""
    try:
        return _follow()
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)


def _follow() -> int:
    from bench.run.child import piped_child, run_child
    from bench.run.launch import child_environment

    number = 1
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    while True:
        child = piped_child(
            "bench.measure.rank_trial",
            str(number),
            environment=child_environment(threads=threads),
        )
        outcome = run_child(
            child,
            timeout_s=float("inf"),
            on_start=lambda _pid: None,
            on_message=lambda _message: None,
        )
        if isinstance(outcome.result, RunEnd):
            return outcome.result.code
        if outcome.last_stage == "start":
            # It had no word from rank 0: the store is gone, and with it the run.
            return int(ExitCode.INVALID)
        if outcome.exit_code != 0:
            detail = f"rank {os.environ['RANK']}: {outcome.detail}"
            failure = Failure(code="crashed", detail=detail)
            _post(Post(number=number, key="failure", message=failure))
        number += 1


def end(code: int) -> None:
    """Rank 0: tell the others that the run is over, and with which exit code."""
    _post(Post(number=None, key="request", message=RunEnd(code=code)))


def _post(letter: Post) -> None:
    with contextlib.suppress(MeasurementError):  # without a store there is nobody left to tell
        ask("bench.measure.rank_trial", letter, kind=type(None), what="the store")
