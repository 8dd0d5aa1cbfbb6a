"""The part of the processor and its memory that this process may use.

Affinity, SMT siblings, memory nodes and control groups are honoured, so that a trial in a container
starts as many threads as it will really be given. Nothing is set here: the caller pins. What else
used the processor meanwhile is in `noise`.
"""

import os
import platform
import subprocess
from pathlib import Path

import psutil

from bench.devices.host.cgroup import (
    ROOT,
    cpu_quota,
    memory_left_bytes,
    memory_limit_bytes,
    read_text,
)
from bench.devices.host.cpu_topology import group_siblings, numa_nodes, pick_cpus


def allowed_cpu_ids() -> tuple[int, ...]:
    """Logical processors that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(psutil.cpu_count() or 1))


def _allowed_cores(root: Path) -> tuple[tuple[int, ...], ...]:
    cores = group_siblings(allowed_cpu_ids(), root=root)
    num_physical = psutil.cpu_count(logical=False)
    if platform.system() != "Linux" and num_physical:
        # Nothing reports which ids are siblings: let the first of each run of ids stand for a core.
        stride = max(1, len(cores) // num_physical)
        return cores[::stride][:num_physical]
    return cores


def usable_cores(*, root: Path = ROOT) -> int:
    """Physical cores this process may use: affinity without SMT siblings, quota rounded down."""
    num_cores = len(_allowed_cores(root))
    quota = cpu_quota(root=root)
    return max(1, num_cores if quota is None else min(num_cores, int(quota)))


def usable_cpu_ids(*, num_cores: int | None = None, root: Path = ROOT) -> tuple[int, ...]:
    """One logical id for each usable core (or for `num_cores`), in one memory node if it can."""
    usable = usable_cores(root=root)
    wanted = usable if num_cores is None else max(1, min(num_cores, usable))
    return pick_cpus(_allowed_cores(root), nodes=numa_nodes(root=root), num_cores=wanted)


def usable_memory_bytes(*, root: Path = ROOT) -> int:
    """Memory this process may fill: the machine's, or the control group's limit where smaller."""
    total = psutil.virtual_memory().total
    limit = memory_limit_bytes(root=root)
    return total if limit is None else min(total, limit)


def free_memory_bytes(*, root: Path = ROOT) -> int:
    """Memory that can be had now without swapping, control group honoured."""
    available = psutil.virtual_memory().available
    left = memory_left_bytes(root=root)
    return available if left is None else min(available, left)


def cpu_model(*, root: Path = ROOT) -> str | None:
    """Marketing name of the processor, or None where nothing shows."""
    fields = cpuinfo(root)
    for name in ("model name", "cpu model", "Processor", "Model", "Hardware"):
        if fields.get(name):
            return fields[name]
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip() or None
    return platform.processor() or None


def cpuinfo(root: Path) -> dict[str, str]:
    """First value of each field in /proc/cpuinfo; empty where there is none."""
    fields: dict[str, str] = {}
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields
