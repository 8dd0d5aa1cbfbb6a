"""What used the processor while a trial was being measured.

Snapshots of CPU time, taken in the parent about once a second, are turned into shares of a window:
the trial's own, everybody else's, and the hypervisor's. Whether a trial is valid is judged from
these, never from its step times. The kernel adds an ended child's time to the parent that waited
for it: own time plus waited-for time, summed over the tree, does not jump when a worker or compiler
exits. Linux is read from /proc; elsewhere psutil gives what it can and the rest is None. A process
that leaves the trial's tree, as daemons do, counts as foreign.
"""

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from bench.devices.host.cgroup import ROOT, read_text

FOREIGN_CPU_WARN_FRAC = 0.05
"""Of the whole machine; a trial with more is marked."""
FOREIGN_CPU_INVALID_FRAC = 0.20
STEAL_WARN_FRAC = 0.01

ProcessKey = tuple[int, float]
"""Process id and start time: ids are used again, pairs are not."""
ThreadKey = tuple[ProcessKey, str]


@dataclass(frozen=True, kw_only=True)
class ProcessTimes:
    """Counters of one process since it began."""

    parent_pid: int
    own_s: float
    """CPU seconds of its threads, ended ones included."""
    reaped_s: float
    """CPU seconds of ended children that it waited for."""
    major_faults: int | None = None
    name: str = ""
    """Of its command, without arguments."""

    @property
    def whole_s(self) -> float:
        """CPU seconds of it and of the children that it waited for."""
        return self.own_s + self.reaped_s


def _linux_processes(root: Path) -> dict[ProcessKey, ProcessTimes]:
    """Read /proc/PID/stat (man 5 proc_pid_stat); the name in brackets may hold anything."""
    ticks_per_s = float(os.sysconf("SC_CLK_TCK"))
    found: dict[ProcessKey, ProcessTimes] = {}
    for folder in (root / "proc").iterdir():
        text = read_text(folder / "stat") if folder.name.isdigit() else None
        # Field n of the manual is fields[n - 3]: state is the third and the first after the name.
        named, _, rest = (text or "").rpartition(")")
        fields = rest.split()
        if len(fields) < 20:
            continue
        found[int(folder.name), int(fields[19]) / ticks_per_s] = ProcessTimes(
            parent_pid=int(fields[1]),
            own_s=(int(fields[11]) + int(fields[12])) / ticks_per_s,
            reaped_s=(int(fields[13]) + int(fields[14])) / ticks_per_s,
            major_faults=int(fields[9]),
            name="".join(one for one in named.partition("(")[2] if one.isprintable()),
        )
    return found


def _psutil_processes() -> dict[ProcessKey, ProcessTimes]:
    found: dict[ProcessKey, ProcessTimes] = {}
    for process in psutil.process_iter(("pid", "ppid", "name", "create_time", "cpu_times")):
        info = process.info
        times = info["cpu_times"]
        if times is None or info["create_time"] is None:
            continue
        found[info["pid"], info["create_time"]] = ProcessTimes(
            parent_pid=info["ppid"] or 0,
            name=info["name"] or "",
            own_s=times.user + times.system,
            # Systems other than Linux leave these zero: an ended child's time is then gone.
            reaped_s=getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0),
        )
    return found


def all_processes(*, root: Path = ROOT) -> dict[ProcessKey, ProcessTimes]:
    """Every process that can be read."""
    return _linux_processes(root) if platform.system() == "Linux" else _psutil_processes()


def _involuntary_switches(processes: Iterable[ProcessKey]) -> dict[ThreadKey, int]:
    """Involuntary context switches by living thread; empty where the system does not count them.

    /proc/PID/status alone counts the main thread only, hence one file for each thread.
    """
    counts: dict[ThreadKey, int] = {}
    for key in processes:
        with suppress(OSError):  # a process may end meanwhile
            for thread in Path(f"/proc/{key[0]}/task").iterdir():
                status = read_text(thread / "status") or ""
                _, is_counted, count = status.partition("nonvoluntary_ctxt_switches:")
                if is_counted:
                    counts[key, thread.name] = int(count.split()[0])
    return counts


def descendants(
    processes: Mapping[ProcessKey, ProcessTimes], *, pids: Iterable[int]
) -> set[ProcessKey]:
    """Keys of these processes and everything below them."""
    known, found = set(pids), set[ProcessKey]()
    while more := {
        key
        for key, times in processes.items()
        if key not in found and (key[0] in known or times.parent_pid in known)
    }:
        found |= more
        known |= {pid for pid, _ in more}
    return found


@dataclass(frozen=True, kw_only=True)
class CpuSnapshot:
    """Counters at one moment; only differences between two snapshots mean anything."""

    time_s: float
    """time.monotonic(), which all processes of a machine share."""
    busy_s: float
    """CPU seconds that all logical processors spent working, steal not included."""
    steal_s: float | None
    total_s: float
    """CPU seconds that passed on all logical processors, idle included."""
    processes: Mapping[ProcessKey, ProcessTimes] = field(default_factory=dict)
    """The trial's tree and the harness around it."""
    switches: Mapping[ThreadKey, int] = field(default_factory=dict)
    """Involuntary context switches of each living thread of the trial."""
    faults: Mapping[ProcessKey, int] = field(default_factory=dict)
    """Major page faults of each process of the trial."""
    everything: Mapping[ProcessKey, ProcessTimes] = field(default_factory=dict)
    """Every process of the machine, where that was asked for."""

    @property
    def own_cpu_s(self) -> float:
        """CPU seconds of the tree so far; jumps down when an ended child was never waited for."""
        return sum(times.whole_s for times in self.processes.values())


@dataclass(frozen=True, kw_only=True)
class CpuNoise:
    """What the processor did during a window; None where it could not be measured."""

    own_cpu_frac: float | None = None
    """Trial and harness, as a share of the usable cores; SMT siblings may fill it early."""
    foreign_cpu_frac: float | None = None
    """Everything else, as a share of the whole machine."""
    steal_frac: float | None = None
    involuntary_switches_per_s: float | None = None
    major_faults_per_s: float | None = None


def take_snapshot(
    pid: int, *, siblings: Sequence[int] = (), keeps_everything: bool = False
) -> CpuSnapshot:
    """Counters of the machine, of the trial `pid` with everything below it, and of this process.

    `siblings` are more processes of the harness that are not below this one.
    A process that has ended is simply absent: its time is in its parent's by then.
    """
    everything = all_processes()
    time_s = time.monotonic()
    times = psutil.cpu_times()._asdict()  # guest time is already part of user time
    busy_s = sum(times.get(name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    steal_s = times.get("steal")
    trial = descendants(everything, pids=[pid])
    harness = descendants(everything, pids=[os.getpid(), *siblings])
    return CpuSnapshot(
        time_s=time_s,
        busy_s=busy_s,
        steal_s=steal_s,
        total_s=busy_s + (steal_s or 0.0) + times["idle"] + times.get("iowait", 0.0),
        processes={key: everything[key] for key in trial | harness},
        switches=_involuntary_switches(trial),
        faults={key: count for key in trial if (count := everything[key].major_faults) is not None},
        everything=everything if keeps_everything else {},
    )


def _own_growths_s(snapshots: Sequence[CpuSnapshot]) -> list[float]:
    """CPU seconds that the tree used between each snapshot and the next.

    The sum over the tree is exact while parents wait for their children. It falls when a child was
    not waited for, or ended while /proc was being read; then the growth of the processes that are
    still there is counted, and what the sum makes up for later is not counted a second time.
    """
    growths_s: list[float] = []
    counted_ahead_s = 0.0
    for before, after in pairwise(snapshots):
        change_s = after.own_cpu_s - before.own_cpu_s
        least_s = sum(
            max(0.0, now.own_s - (before.processes[key].own_s if key in before.processes else 0.0))
            for key, now in after.processes.items()
        )
        grown_s = max(least_s, change_s - counted_ahead_s)
        counted_ahead_s = max(0.0, counted_ahead_s + grown_s - change_s)
        growths_s.append(grown_s)
    return growths_s


def _trial_growth(before: Mapping[Any, int], *, after: Mapping[Any, int]) -> float | None:
    """Growth of counters of the trial; those of threads that ended in between are lost."""
    growths = [max(0, count - before.get(key, 0)) for key, count in after.items()]
    return float(sum(growths)) if growths else None


def noise_between(before: CpuSnapshot, after: CpuSnapshot) -> CpuNoise:
    """Shares of the time between two snapshots, own time as if there were one core."""
    return cpu_noise([before, after], start_s=before.time_s, end_s=after.time_s, num_cores=1)


def cpu_noise(
    snapshots: Sequence[CpuSnapshot], *, start_s: float, end_s: float, num_cores: int
) -> CpuNoise:
    """Shares of the processor's time in a window of time.monotonic().

    Everything is None unless the snapshots (in order of time) begin before the window and end
    after it: counters are interpolated at its edges, never extrapolated.
    """
    if not snapshots or snapshots[0].time_s > start_s or snapshots[-1].time_s < end_s:
        return CpuNoise()
    if end_s <= start_s or num_cores < 1:
        return CpuNoise()
    pairs = list(pairwise(snapshots))

    def rate(growths: Sequence[float | None]) -> float | None:
        """Growth of a counter per second of the part of the window in which it is known.

        An interval cut by the window's edge counts by its share inside. What only a living trial
        shows is unknown in the last interval when the trial ended before the snapshot closing it.
        """
        total = known_s = 0.0
        for growth, (before, after) in zip(growths, pairs, strict=True):
            inside_s = min(end_s, after.time_s) - max(start_s, before.time_s)
            if inside_s > 0 and growth is not None:
                total += max(0.0, growth) * inside_s / (after.time_s - before.time_s)
                known_s += inside_s
        return total / known_s if known_s > 0 else None

    passed = rate([after.total_s - before.total_s for before, after in pairs])
    busy = rate([after.busy_s - before.busy_s for before, after in pairs]) or 0.0
    own = rate(_own_growths_s(snapshots)) or 0.0
    switches = [_trial_growth(before.switches, after=after.switches) for before, after in pairs]
    faults = [_trial_growth(before.faults, after=after.faults) for before, after in pairs]
    stolen = [(before.steal_s, after.steal_s) for before, after in pairs]
    steal = rate([None if a is None or b is None else b - a for a, b in stolen])
    return CpuNoise(
        own_cpu_frac=min(1.0, own / num_cores),
        foreign_cpu_frac=min(1.0, max(0.0, busy - own) / passed) if passed else None,
        steal_frac=min(1.0, steal / passed) if passed and steal is not None else None,
        involuntary_switches_per_s=rate(switches),
        major_faults_per_s=rate(faults),
    )
