"""What a trial gets of the machine: cores, threads, loader processes, a rest for the idle power."""

from __future__ import annotations

from bench import discovery
from bench.devices import cpu
from bench.measure.limits import Limits
from bench.measure.request import TrialRequest
from bench.run.record import Facts
from bench.run.request import Planned

IDLE_S = 5.0
"""Rest with the context open, to know the idle power."""


def make_request(planned: Planned, *, trial: int, limits: Limits, facts: Facts) -> TrialRequest:
    """Turn a planned configuration into what the trial's process is asked to do."""
    config, device = planned.config, facts.inspection.device
    workers = num_workers(planned, facts=facts)
    is_fake = device.type == "fake"
    gives_power = bool({"power", "energy"} & set(device.telemetry))
    return TrialRequest(
        config=config,
        limits=limits,
        trial=trial,
        cpu_ids=() if is_fake else cpu.usable_cpu_ids(),
        threads=config.threads or max(1, facts.usable_cores - workers),
        workers=workers,
        idle_s=IDLE_S if gives_power and not limits.is_smoke else 0.0,
    )


def num_workers(planned: Planned, *, facts: Facts) -> int:
    """Loader processes: a quarter of the cores at an accelerator, one beside a CPU's compute.

    Generated data is cut from memory in microseconds, so on a CPU it needs no process.
    """
    config = planned.config
    found = discovery.load(config.source or config.workload)
    if not found.phase(config.phase).is_training or config.data == "resident":
        return 0
    if config.workers is not None:
        return config.workers
    if facts.inspection.is_accelerator:
        return max(1, min(8, facts.usable_cores // 4))
    return 1 if config.data != "generated" and facts.usable_cores > 1 else 0
