"""Who else uses the processor right now: a look of about one second."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from bench.devices.doctor.finding import Finding, Severity
from bench.devices.host.cgroup import read_text
from bench.devices.host.cpu_noise import (
    FOREIGN_CPU_INVALID_FRAC,
    FOREIGN_CPU_WARN_FRAC,
    STEAL_WARN_FRAC,
    CpuNoise,
    cpu_noise,
    take_snapshot,
)
from bench.devices.host.processes import ProcessKey, ProcessTimes, all_processes, descendants

_BUSY_CORES = 0.05
_NUM_NAMED = 3
_LOAD_PER_CPU = 0.5


def busiest(
    before: Mapping[ProcessKey, ProcessTimes],
    *,
    after: Mapping[ProcessKey, ProcessTimes],
    elapsed_s: float,
    own: set[ProcessKey],
) -> list[tuple[int, float]]:
    """Process id and cores used, of the busiest foreign processes, busiest first."""
    used = [
        (key[0], (now.own_s - before[key].own_s) / elapsed_s)
        for key, now in after.items()
        if key in before and key not in own
    ]
    busy = [(pid, cores) for pid, cores in used if cores >= _BUSY_CORES]
    return sorted(busy, key=lambda item: -item[1])[:_NUM_NAMED]


def noise_findings(
    noise: CpuNoise, *, busy: list[tuple[int, float]], names: Mapping[int, str]
) -> Iterator[Finding]:
    """Report processor time that others used, named as far as they can be seen, and stolen time."""
    share = noise.foreign_cpu_frac
    if busy or (share or 0.0) > FOREIGN_CPU_WARN_FRAC:
        listed = ", ".join(f"{names.get(pid, '?')} (pid {pid}, {n:.1f} cores)" for pid, n in busy)
        severity: Severity = "warning"
        if share is not None and not FOREIGN_CPU_WARN_FRAC < share <= FOREIGN_CPU_INVALID_FRAC:
            severity = "note" if share <= FOREIGN_CPU_WARN_FRAC else "error"
        total = "" if share is None else f"other programs use {share:.0%} of the processor: "
        pids = ",".join(str(pid) for pid, _ in busy)
        yield Finding(
            severity=severity,
            what=total + (listed or "not visible from here"),
            why=f"a trial with over {FOREIGN_CPU_WARN_FRAC:.0%} foreign use is marked, "
            f"one with over {FOREIGN_CPU_INVALID_FRAC:.0%} is invalid",
            fix=f"stop them or wait: top -p {pids}" if pids else "look on the host: top",
        )
    if (noise.steal_frac or 0.0) > STEAL_WARN_FRAC:
        yield Finding(
            severity="warning",
            what=f"the hypervisor took {noise.steal_frac:.1%} of the processor's time",
            why="other virtual machines share these cores",
            fix="use an instance with dedicated cores",
        )


def load_findings(*, root: Path, watch_s: float) -> Iterator[Finding]:
    """Watch the machine for `watch_s` and report what was busy; then the one-minute load."""
    first = take_snapshot(os.getpid(), root=root)
    before = all_processes(root=root)
    start_s = time.monotonic()
    time.sleep(watch_s)
    after = all_processes(root=root)
    elapsed_s = time.monotonic() - start_s
    last = take_snapshot(os.getpid(), root=root)
    noise = cpu_noise([first, last], start_s=first.time_s, end_s=last.time_s, num_cores=1)
    own = descendants(after, pids=[os.getpid()])
    busy = busiest(before, after=after, elapsed_s=elapsed_s, own=own)
    yield from noise_findings(noise, busy=busy, names={pid: _name(pid, root) for pid, _ in busy})
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    num_cpus = psutil.cpu_count() or 1
    if load > _LOAD_PER_CPU * num_cpus:
        yield Finding(
            severity="warning",
            what=f"the load average is {load:.1f} on {num_cpus} processors",
            why="trials would share the processor with what caused it",
            fix="wait for it to fall: uptime",
        )


def _name(pid: int, root: Path) -> str:
    name = read_text(root / "proc" / str(pid) / "comm")
    if name:
        return name
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "?"
