"""Who else uses the processor right now: a look of about one second."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from bench.devices.cgroup import read_text
from bench.devices.finding import Finding, Severity
from bench.devices.noise import CpuNoise, cpu_noise, take_snapshot
from bench.devices.processes import ProcessKey, ProcessTimes, all_processes, descendants

WARN_FOREIGN_FRAC = 0.05
MAX_FOREIGN_FRAC = 0.20
WARN_STEAL_FRAC = 0.01
_BUSY_CORES = 0.05
_NUM_NAMED = 3
_LOAD_PER_CPU = 0.5


def load_average_finding() -> Finding | None:
    """Report a one-minute load of over half a task for each logical processor."""
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    num_cpus = psutil.cpu_count() or 1
    if load <= _LOAD_PER_CPU * num_cpus:
        return None
    return Finding(
        severity="warning",
        what=f"the load average is {load:.1f} on {num_cpus} processors",
        why="trials would share the processor with what caused it",
        fix="wait for it to fall: uptime",
    )


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


def foreign_finding(
    noise: CpuNoise, *, busy: list[tuple[int, float]], names: Mapping[int, str]
) -> Finding | None:
    """Report processor time that others used; named as far as they can be seen."""
    share = noise.foreign_cpu_frac
    if not busy and (share is None or share <= WARN_FOREIGN_FRAC):
        return None
    listed = ", ".join(
        f"{names.get(pid, '?')} (pid {pid}, {cores:.1f} cores)" for pid, cores in busy
    )
    severity: Severity = "note"
    if share is None or share > WARN_FOREIGN_FRAC:
        severity = "warning" if share is None or share <= MAX_FOREIGN_FRAC else "error"
    total = "" if share is None else f"other programs use {share:.0%} of the processor: "
    return Finding(
        severity=severity,
        what=total + (listed or "not visible from here"),
        why=f"a trial with over {WARN_FOREIGN_FRAC:.0%} foreign use is marked, one with over "
        f"{MAX_FOREIGN_FRAC:.0%} is invalid",
        fix=f"stop them or wait: top -p {','.join(str(pid) for pid, _ in busy)}"
        if busy
        else "look on the host: top",
    )


def steal_finding(noise: CpuNoise) -> Finding | None:
    """Report time taken by the hypervisor."""
    if noise.steal_frac is None or noise.steal_frac <= WARN_STEAL_FRAC:
        return None
    return Finding(
        severity="warning",
        what=f"the hypervisor took {noise.steal_frac:.1%} of the processor's time",
        why="other virtual machines share these cores",
        fix="use an instance with dedicated cores",
    )


def load_findings(*, root: Path, watch_s: float) -> list[Finding]:
    """Watch the machine for `watch_s` and report what was busy."""
    first = take_snapshot(os.getpid(), root=root)
    before = all_processes(root=root)
    start_s = time.monotonic()
    time.sleep(watch_s)
    after = all_processes(root=root)
    elapsed_s = time.monotonic() - start_s
    last = take_snapshot(os.getpid(), root=root)
    noise = cpu_noise([first, last], start_s=first.time_s, end_s=last.time_s, num_cores=1)
    busy = busiest(
        before, after=after, elapsed_s=elapsed_s, own=descendants(after, pids=[os.getpid()])
    )
    names = {pid: _name(pid, root=root) for pid, _ in busy}
    found = [
        foreign_finding(noise, busy=busy, names=names),
        steal_finding(noise),
        load_average_finding(),
    ]
    return [finding for finding in found if finding is not None]


def _name(pid: int, *, root: Path) -> str:
    name = read_text(root / "proc" / str(pid) / "comm")
    if name:
        return name
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "?"
