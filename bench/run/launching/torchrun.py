"""What torchrun says in the environment: its ranks, and what a job that is gone left behind.

Only torchrun's own variables make a rank; RANK and WORLD_SIZE by themselves say nothing, because
schedulers set them for other purposes. What is not a rank gets none of them
(`bench.measure.asking.same_modules`).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.core.errors import UsageError
from bench.core.units import counted
from bench.run.planning.request import RunRequest

JOIN_LIMIT_S = 30.0
"""For an answer of the job's store, which is there before its ranks are."""
_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
_JOB_VARIABLES = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class World:
    """The ranks that torchrun started, as one of them sees it."""

    rank: int
    num_ranks: int
    num_local_ranks: int


def world_of(environment: Mapping[str, str]) -> World | None:
    """Return the world that torchrun put this process into; None for one process alone.

    `UsageError` where only a part of torchrun's variables is there.
    """
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    given = {name: environment.get(name, "") for name in (*_NUMBERS, "MASTER_ADDR")}
    if not all(given[name].isdecimal() for name in _NUMBERS) or not given["MASTER_ADDR"]:
        found = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UsageError(
            f"half of torchrun's variables are set ({found}): unset TORCHELASTIC_USE_AGENT_STORE, "
            "or start it with torchrun"
        )
    world = World(
        rank=int(environment["RANK"]),
        num_ranks=int(environment["WORLD_SIZE"]),
        num_local_ranks=int(environment["LOCAL_WORLD_SIZE"]),
    )
    return world if world.num_ranks > 1 else None


def check_job(environment: Mapping[str, str]) -> None:
    """Refuse the variables of a job whose store does not answer: no rank would ever be found."""
    host, port = environment["MASTER_ADDR"], environment["MASTER_PORT"]
    try:
        socket.create_connection((host, int(port)), timeout=JOIN_LIMIT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"the torchrun job of this environment does not answer at {host}:{port} ({reason}); "
            "if it has ended, unset TORCHELASTIC_USE_AGENT_STORE; else look at that address"
        ) from error


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


def check_devices(world: World | None, *, devices: tuple[int, ...]) -> None:
    """Refuse --devices where torchrun started another number of ranks."""
    if world is not None and devices not in ((), (world.num_ranks,)):
        asked = ",".join(map(str, devices))
        raise UsageError(
            f"--devices {asked} does not go with torchrun, which started "
            f"{counted(world.num_ranks, 'rank')}; leave --devices out, or start as many ranks"
        )


def as_ranks(request: RunRequest, *, world: World) -> RunRequest:
    """Return what is asked of torchrun's ranks: all of them, real, so that a link throttles them.

    Raises `UsageError` where one rank would work and the others only wait.
    """
    check_devices(world, devices=request.devices)
    if request.mode in ("emulated", "simulated"):
        raise UsageError(
            f"--mode {request.mode} takes one process, and torchrun started {world.num_ranks}; "
            "leave torchrun out, or use --mode throttled"
        )
    mode = request.mode or ("throttled" if request.links else None)
    return replace(request, devices=(world.num_ranks,), mode=mode)
