"""The ranks that the user's `torchrun` started, and what that decides about the flags.

Every rank is started with the same command line: rank 0 runs the command and writes rows, the
others take part in its trials (`bench.run.launching.launch.follow`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.core.errors import UsageError

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
