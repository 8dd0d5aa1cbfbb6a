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

from bench.devices.host.cpu_noise import (
    FOREIGN_CPU_INVALID_FRAC,
    CpuSnapshot,
    ProcessKey,
    ProcessTimes,
    noise_between,
    take_snapshot,
)

QUIET_LIMIT_S = 30.0
"""The longest wait for quiet before a trial."""
_LOOK_S = 0.25
"""Of two processors it is 50 ticks: enough to tell a fifth of them from none."""
_WAITING_LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class ForeignLoad:
    """What others used of the processors between two looks."""

    frac: float
    """Share of the whole machine."""
    words: str
    """The worst program with its share, or that most of the use is of none that can be seen."""


def look(*, siblings: Sequence[int] = ()) -> CpuSnapshot:
    """Look at every process; `siblings` are some of the harness that are not below this one."""
    return take_snapshot(os.getpid(), siblings=siblings, keeps_everything=True)


def load_between(before: CpuSnapshot, after: CpuSnapshot) -> ForeignLoad:
    """Return what others used between two looks; nothing where the system does not show it."""
    frac = noise_between(before, after).foreign_cpu_frac or 0.0
    used_s = _used_by_name(before.everything, after=after.everything, own=after.processes.keys())
    whole_s = (after.time_s - before.time_s) * (psutil.cpu_count() or 1)
    worst, worst_s = max(used_s.items(), key=itemgetter(1), default=("", 0.0))
    if not worst or sum(used_s.values()) < frac * whole_s / 2:
        worst, worst_s = "programs not visible from here", frac * whole_s
    share = min(1.0, worst_s / whole_s)
    return ForeignLoad(frac=frac, words=f"{worst}, {share:.0%} of the processors")


def _used_by_name(
    before: Mapping[ProcessKey, ProcessTimes],
    *,
    after: Mapping[ProcessKey, ProcessTimes],
    own: Collection[ProcessKey],
) -> dict[str, float]:
    """CPU seconds that each program used, with those of processes below it that ended meanwhile.

    What such a process had used before is now in the sum of the one above it, and does not count.
    """
    ended = {key: times for key, times in before.items() if key not in after}
    parents = {key[0]: times.parent_pid for key, times in ended.items()}
    counted_s: defaultdict[int, float] = defaultdict(float)
    for times in ended.values():
        left = times.parent_pid
        while left in parents:  # it ended too
            left = parents[left]
        counted_s[left] += times.whole_s
    used_s: defaultdict[str, float] = defaultdict(float)
    for key in after.keys() - own:
        now, then_s = after[key], before[key].whole_s if key in before else 0.0
        used_s[now.name] += max(0.0, now.whole_s - then_s - counted_s[key[0]])
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
