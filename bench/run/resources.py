"""What a trial gets of the machine: cores, threads, loader processes, a rest for the idle power."""

from __future__ import annotations

import os

from bench import discovery
from bench.core.nouns import Config
from bench.devices import cpu
from bench.hardware.chip_limit import parse_chip_limit
from bench.measure.limits import Limits
from bench.measure.messages import TrialRequest
from bench.run.cluster import world_of
from bench.run.plan import Planned
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
    found = discovery.load(config.source or config.workload)
    if not found.phase(config.phase).is_training or config.data == "resident":
        return 0
    if config.workers is not None:
        return config.workers
    cores = facts.usable_cores // num_local_ranks(config)
    if facts.inspection.is_accelerator:
        return max(1, min(8, cores // 4))
    return 1 if config.data != "generated" and cores > 1 else 0
