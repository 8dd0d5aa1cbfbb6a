"""What a trial's processes are and get: one for a single device, an agent and ranks for several.

A trial on several devices of this machine is an agent's process with its ranks below (see
`rank_folder`); under torchrun the ranks are there already. How a process is started, heard and
ended is `bench.run.launching.child`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace

from bench import discovery
from bench.core.errors import ExitCode, MeasurementError, UsageError
from bench.core.nouns import Config
from bench.devices.host import cpu
from bench.hardware.chip_limit import parse_chip_limit
from bench.measure.asking import ask, same_modules
from bench.measure.engine.torch_facts import MIOPEN_FIND_MODE
from bench.measure.messages import Failure, LinkRequest, Post, RunEnd, TrialRequest, encode
from bench.measure.timing.limits import Limits
from bench.run.launching.child import Child, OnMessage, Outcome, run_child
from bench.run.launching.cluster import world_of
from bench.run.launching.rank_folder import RankFolder
from bench.run.planning.plan import Planned
from bench.run.record import Facts

IDLE_S = 5.0
"""Rest with the context open, to know the idle power."""


def make_request(planned: Planned, *, trial: int, limits: Limits, facts: Facts) -> TrialRequest:
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


def num_workers(planned: Planned, *, facts: Facts) -> int:
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
    child = Child(
        module="bench.measure.trial",
        environment=child_environment(threads=request.threads),
        request=encode(request),
    )
    return run_child(child, timeout_s=timeout_s, on_start=on_start, on_message=on_message)


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
    if world is not None:
        if world.num_ranks != num_ranks:
            raise UsageError(
                f"this is for {num_ranks} ranks and torchrun started {world.num_ranks}; "
                "start as many, or run it without torchrun"
            )
        leader = Child(
            module="bench.measure.ranks.rank_trial",
            arguments=("lead",),
            environment=child_environment(threads=threads),
            request=encode(request),
        )
        return run_child(leader, timeout_s=timeout_s, on_start=on_start, on_message=on_message)
    with RankFolder(encode(request)) as folder:
        child = Child(
            module="bench.measure.ranks.rank_agent",
            arguments=(str(folder.path), str(num_ranks)),
            pipe=folder.open_pipe(),
            environment={**child_environment(threads=threads), **folder.environment()},
        )
        outcome = run_child(child, timeout_s=timeout_s, on_start=on_start, on_message=on_message)
    # The largest process of all, agent included: rank 0 tells its own in its row.
    return replace(outcome, rss_peak_bytes=None)


# Under torchrun ----------------------------------------------------------------------------------


def follow() -> int:
    """Another rank under torchrun: take part in all that rank 0 does, end with its exit code.

    Rank 0's trials write into the agent's store what is next. This process prints nothing.
    """
    try:
        return _follow()
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)


def _follow() -> int:
    number = 1
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    while True:
        child = Child(
            module="bench.measure.ranks.rank_trial",
            arguments=(str(number),),
            environment=child_environment(threads=threads),
        )
        outcome = run_child(child)
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
        ask("bench.measure.ranks.rank_trial", letter, kind=type(None), what="the store")
