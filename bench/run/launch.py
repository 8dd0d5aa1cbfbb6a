"""What a trial's processes are: one for a single device, an agent and its ranks for several.

A trial on several devices of this machine is an agent's process with its ranks below (see
`rank_folder`); under torchrun the ranks are there already. How a process is started, heard and
ended is `bench.run.child`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from bench.core.errors import UsageError
from bench.measure.asking import same_modules
from bench.measure.messages import LinkRequest, TrialRequest, encode
from bench.run.child import Child, OnMessage, Outcome, piped_child, run_child
from bench.run.cluster import world_of
from bench.run.rank_folder import RankFolder


def child_environment(*, threads: int) -> dict[str, str]:
    """Environment of a trial: thread counts before torch is imported, no network, no surprises."""
    return {
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
    child = piped_child(
        "bench.measure.trial",
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
    on_start: Callable[[int], None],
    on_message: OnMessage,
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
        leader = piped_child(
            "bench.measure.rank_trial",
            "lead",
            environment=child_environment(threads=threads),
            request=encode(request),
        )
        return run_child(leader, timeout_s=timeout_s, on_start=on_start, on_message=on_message)
    with RankFolder(encode(request)) as folder:
        receive, send = folder.open_pipe()
        child = Child(
            module="bench.measure.rank_agent",
            arguments=(str(send), str(folder.path), str(num_ranks)),
            receive=receive,
            send=send,
            environment={**child_environment(threads=threads), **folder.environment()},
        )
        outcome = run_child(child, timeout_s=timeout_s, on_start=on_start, on_message=on_message)
    # The largest process of all, agent included: rank 0 tells its own in its row.
    return replace(outcome, rss_peak_bytes=None)
