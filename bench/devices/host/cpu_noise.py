"""What used the processor while a trial was being measured.

Snapshots of CPU time, taken in the parent about once a second, are turned into shares of a window:
the trial's own, everybody else's, and the hypervisor's. Whether a trial is valid is judged from
these, never from its step times. Left out: pressure-stall figures and per-core shares. A process
that leaves the trial's tree, as daemons do, counts as foreign.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import psutil

from bench.devices.host.cgroup import ROOT, read_text
from bench.devices.host.processes import (
    ProcessKey,
    ProcessTimes,
    all_processes,
    descendants,
    involuntary_switches,
)

_STAT_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
FOREIGN_CPU_WARN_FRAC = 0.05
"""Of the whole machine; a trial with more is marked."""
FOREIGN_CPU_INVALID_FRAC = 0.20
STEAL_WARN_FRAC = 0.01
_BUSY_FIELDS = ("user", "nice", "system", "irq", "softirq")


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
    processes: Mapping[ProcessKey, ProcessTimes]
    """The trial's tree and the harness around it."""

    @property
    def own_cpu_s(self) -> float:
        """CPU seconds of the tree so far; jumps down when an ended child was never waited for."""
        return sum(times.own_s + times.reaped_s for times in self.processes.values())


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


def _system_times(root: Path) -> tuple[float, float | None, float]:
    """Busy, stolen and total CPU seconds. Guest time is already part of user time."""
    line = (read_text(root / "proc/stat") or "").partition("\n")[0].split()
    if line[:1] == ["cpu"]:
        ticks_per_s = float(os.sysconf("SC_CLK_TCK"))
        counts = zip(_STAT_FIELDS, line[1:], strict=False)
        times = {name: int(ticks) / ticks_per_s for name, ticks in counts}
    else:
        times = psutil.cpu_times()._asdict()
    busy_s = sum(times.get(name, 0.0) for name in _BUSY_FIELDS)
    steal_s = times.get("steal")
    total_s = busy_s + (steal_s or 0.0) + times["idle"] + times.get("iowait", 0.0)
    return busy_s, steal_s, total_s


def take_snapshot(pid: int, *, siblings: Sequence[int] = (), root: Path = ROOT) -> CpuSnapshot:
    """Counters of the machine, of the trial `pid` with everything below it, and of this process.

    `siblings` are more processes of the harness that are not below this one.

    A process that has ended is simply absent: its time is in its parent's by then.
    """
    everything = all_processes(root=root)
    time_s = time.monotonic()
    busy_s, steal_s, total_s = _system_times(root)
    trial = descendants(everything, pids=[pid])
    harness = descendants(everything, pids=[os.getpid(), *siblings])
    return CpuSnapshot(
        time_s=time_s,
        busy_s=busy_s,
        steal_s=steal_s,
        total_s=total_s,
        processes={
            key: replace(
                everything[key],
                is_trial=key in trial,
                switches_by_thread=involuntary_switches(key[0], root=root)
                if key in trial
                else None,
            )
            for key in trial | harness
        },
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


def _trial_growth(
    before: CpuSnapshot, after: CpuSnapshot, counters: Callable[[ProcessTimes], Mapping[int, int]]
) -> float | None:
    """Growth of counters of the trial; those of threads that ended in between are lost."""
    growths = [
        max(0, count - earlier.get(key, 0))
        for process, now in after.processes.items()
        for earlier in [counters(before.processes[process]) if process in before.processes else {}]
        for key, count in counters(now).items()
    ]
    return float(sum(growths)) if growths else None


def _switches(times: ProcessTimes) -> Mapping[int, int]:
    return times.switches_by_thread or {}


def _faults(times: ProcessTimes) -> Mapping[int, int]:
    return {0: times.major_faults} if times.is_trial and times.major_faults is not None else {}


def _rate_in_window(
    growths: Sequence[float | None],
    *,
    times_s: Sequence[float],
    start_s: float,
    end_s: float,
) -> float | None:
    """Growth of a counter per second of the part of the window in which it is known.

    An interval cut by the window's edge counts by its share inside. What only a living trial shows
    is unknown in the last interval when the trial ended before the snapshot that closes it.
    """
    total = known_s = 0.0
    for growth, (before_s, after_s) in zip(growths, pairwise(times_s), strict=True):
        inside_s = min(end_s, after_s) - max(start_s, before_s)
        if inside_s > 0 and growth is not None:
            total += max(0.0, growth) * inside_s / (after_s - before_s)
            known_s += inside_s
    return total / known_s if known_s > 0 else None


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
    times_s = [snapshot.time_s for snapshot in snapshots]

    def rate(growths: Sequence[float | None]) -> float | None:
        return _rate_in_window(growths, times_s=times_s, start_s=start_s, end_s=end_s)

    passed = rate([after.total_s - before.total_s for before, after in pairs])
    busy = rate([after.busy_s - before.busy_s for before, after in pairs]) or 0.0
    own = rate(_own_growths_s(snapshots)) or 0.0
    stolen = [(before.steal_s, after.steal_s) for before, after in pairs]
    steal = rate([None if a is None or b is None else b - a for a, b in stolen])
    return CpuNoise(
        own_cpu_frac=min(1.0, own / num_cores),
        foreign_cpu_frac=min(1.0, max(0.0, busy - own) / passed) if passed else None,
        steal_frac=min(1.0, steal / passed) if passed and steal is not None else None,
        involuntary_switches_per_s=rate([_trial_growth(*pair, _switches) for pair in pairs]),
        major_faults_per_s=rate([_trial_growth(*pair, _faults) for pair in pairs]),
    )
