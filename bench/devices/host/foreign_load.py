"""Which other programs use the processor: before a trial, which waits for quiet, and during one.

Looked at twice, from the harness's process and outside the window. A program is known by the name
of its command: arguments may name someone, and a name is what a user looks for in `top`.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import psutil

from bench.devices.host.cgroup import ROOT
from bench.devices.host.cpu_noise import (
    FOREIGN_CPU_INVALID_FRAC,
    CpuSnapshot,
    ProcessKey,
    ProcessTimes,
    all_processes,
    cpu_noise,
    take_snapshot,
)

QUIET_LIMIT_S = 30.0
"""The longest wait for quiet before a trial."""
_LOOK_S = 0.25
"""Of two processors it is 50 ticks: enough to tell a fifth of them from none."""
_WAITING_LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """Counters of the machine and of every process at one moment."""

    snapshot: CpuSnapshot
    """Its processes are the harness with everything below it."""
    everything: Mapping[ProcessKey, ProcessTimes]


@dataclass(frozen=True, kw_only=True)
class ForeignLoad:
    """What others used of the processors between two looks, as shares of the whole machine."""

    frac: float
    worst: str
    """Name of the worst program; '' where most of the use is of none that can be seen."""
    worst_frac: float

    @property
    def words(self) -> str:
        """Name the worst, with its share."""
        if not self.worst:
            return f"programs not visible from here, {self.frac:.0%} of the processors"
        return f"{self.worst}, {self.worst_frac:.0%} of the processors"


def look(*, siblings: Sequence[int] = ()) -> Look:
    """Look at the machine; `siblings` are processes of the harness that are not below this one."""
    snapshot = take_snapshot(os.getpid(), siblings=siblings)
    return Look(snapshot=snapshot, everything=all_processes(root=ROOT))


def load_between(before: Look, after: Look) -> ForeignLoad:
    """Return what others used between two looks; nothing where the system does not show it."""
    first, last = before.snapshot, after.snapshot
    noise = cpu_noise([first, last], start_s=first.time_s, end_s=last.time_s, num_cores=1)
    frac = noise.foreign_cpu_frac or 0.0
    used_s = _used_by_name(before.everything, after=after.everything, own=last.processes.keys())
    whole_s = (last.time_s - first.time_s) * (psutil.cpu_count() or 1)
    if sum(used_s.values()) < frac * whole_s / 2:
        return ForeignLoad(frac=frac, worst="", worst_frac=0.0)
    worst, worst_s = max(used_s.items(), key=itemgetter(1), default=("", 0.0))
    return ForeignLoad(frac=frac, worst=worst, worst_frac=min(1.0, worst_s / whole_s))


def _used_by_name(
    before: Mapping[ProcessKey, ProcessTimes],
    *,
    after: Mapping[ProcessKey, ProcessTimes],
    own: Collection[ProcessKey],
) -> dict[str, float]:
    """CPU seconds that each program used, with those of processes below it that ended meanwhile.

    What such a process had used before is now in the sum of the one above it, and does not count.
    """
    parents = {key[0]: times.parent_pid for key, times in before.items() if key not in after}
    ended_s: defaultdict[int, float] = defaultdict(float)
    for key, times in before.items():
        if key not in after:
            left = times.parent_pid
            while left in parents:  # it ended too
                left = parents[left]
            ended_s[left] += times.own_s + times.reaped_s
    used_s: defaultdict[str, float] = defaultdict(float)
    for key, now in after.items():
        if key in own:
            continue
        then = before.get(key)
        then_s = then.own_s + then.reaped_s if then is not None else 0.0
        used_s[now.name] += max(0.0, now.own_s + now.reaped_s - then_s - ended_s[key[0]])
    return used_s


def wait_for_quiet(
    *, limit_s: float, siblings: Sequence[int], report: Callable[[str], None]
) -> bool:
    """Wait until others use less than would spoil a trial; False where they did not in time.

    `report` is given what is waited for, as often as it is looked at.
    """
    deadline_s = time.monotonic() + limit_s
    before, pause_s = look(siblings=siblings), _LOOK_S
    while True:
        time.sleep(pause_s)
        after = look(siblings=siblings)
        load = load_between(before, after)
        if load.frac <= FOREIGN_CPU_INVALID_FRAC:
            return True
        if time.monotonic() >= deadline_s:
            return False
        report(f"waiting for quiet, at most {limit_s:.0f} s: {load.words}")
        before, pause_s = after, _WAITING_LOOK_S
