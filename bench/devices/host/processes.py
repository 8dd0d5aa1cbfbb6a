"""CPU time of a tree of processes, read so that nothing is lost when one of them ends.

The kernel adds an ended child's time to the parent that waited for it, so own time plus waited-for
time, summed over the tree, does not jump when a loader worker or a compiler exits. Linux is read
from /proc in one pass; elsewhere psutil gives what it can and the rest is None.
"""

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.devices.host.cgroup import read_text

_OUR_FIELDS = ("pid", "ppid", "create_time", "cpu_times")

ProcessKey = tuple[int, float]
"""Process id and start time: ids are used again, pairs are not."""


@dataclass(frozen=True, kw_only=True)
class ProcessTimes:
    """Counters of one process since it began."""

    parent_pid: int
    own_s: float
    """CPU seconds of its threads, ended ones included."""
    reaped_s: float
    """CPU seconds of ended children that it waited for."""
    major_faults: int | None = None
    switches_by_thread: Mapping[int, int] | None = None
    """Involuntary context switches of each living thread."""
    is_trial: bool = field(default=False, compare=False)
    """Whether it belongs to the trial rather than to the harness around it."""


def parse_stat(text: str, *, ticks_per_s: float) -> tuple[ProcessKey, ProcessTimes] | None:
    """Parse /proc/PID/stat (man 5 proc_pid_stat); the name in brackets may hold anything."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    pid = head.split("(", 1)[0].strip()
    if not pid.isdigit() or len(fields) < 20:
        return None
    # Field n of the manual is fields[n - 3]: state is the third and the first after the name.
    times = ProcessTimes(
        parent_pid=int(fields[1]),
        own_s=(int(fields[11]) + int(fields[12])) / ticks_per_s,
        reaped_s=(int(fields[13]) + int(fields[14])) / ticks_per_s,
        major_faults=int(fields[9]),
    )
    return (int(pid), int(fields[19]) / ticks_per_s), times


def _linux_processes(root: Path) -> dict[ProcessKey, ProcessTimes]:
    ticks_per_s = float(os.sysconf("SC_CLK_TCK"))
    found: dict[ProcessKey, ProcessTimes] = {}
    for directory in (root / "proc").iterdir():
        if directory.name.isdigit():
            text = read_text(directory / "stat")
            parsed = parse_stat(text, ticks_per_s=ticks_per_s) if text else None
            if parsed is not None:
                found[parsed[0]] = parsed[1]
    return found


def _psutil_processes() -> dict[ProcessKey, ProcessTimes]:
    found: dict[ProcessKey, ProcessTimes] = {}
    for process in psutil.process_iter(_OUR_FIELDS):
        info = process.info
        times = info["cpu_times"]
        if times is None or info["create_time"] is None:
            continue
        found[(info["pid"], info["create_time"])] = ProcessTimes(
            parent_pid=info["ppid"] or 0,
            own_s=times.user + times.system,
            # Systems other than Linux leave these zero: an ended child's time is then gone.
            reaped_s=times.children_user + times.children_system
            if hasattr(times, "children_user")
            else 0.0,
        )
    return found


def all_processes(*, root: Path) -> dict[ProcessKey, ProcessTimes]:
    """Every process that can be read."""
    return _linux_processes(root) if platform.system() == "Linux" else _psutil_processes()


def involuntary_switches(pid: int, *, root: Path) -> dict[int, int] | None:
    """Involuntary context switches by thread; None where the system does not count them.

    /proc/PID/status alone counts the main thread only, hence one file for each thread.
    """
    if platform.system() != "Linux":
        return None
    counts: dict[int, int] = {}
    try:
        directories = list((root / "proc" / str(pid) / "task").iterdir())
    except OSError:
        return None
    for directory in directories:
        for line in (read_text(directory / "status") or "").splitlines():
            if line.startswith("nonvoluntary_ctxt_switches:"):
                counts[int(directory.name)] = int(line.split()[1])
    return counts


def descendants(
    processes: Mapping[ProcessKey, ProcessTimes], *, pids: Iterable[int]
) -> set[ProcessKey]:
    """Keys of these processes and everything below them."""
    children: dict[int, list[ProcessKey]] = {}
    for key, times in processes.items():
        children.setdefault(times.parent_pid, []).append(key)
    wanted = set(pids)
    pending = [key for key in processes if key[0] in wanted]
    found: set[ProcessKey] = set()
    while pending:
        key = pending.pop()
        if key not in found:
            found.add(key)
            pending.extend(children.get(key[0], ()))
    return found
