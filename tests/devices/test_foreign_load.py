"""Who else uses the processor: hand-worked tables of processes, and a wait on a made-up clock."""

from types import SimpleNamespace

import psutil
import pytest

from bench.devices.host import foreign_load
from bench.devices.host.cpu_noise import CpuSnapshot, ProcessTimes
from bench.devices.host.foreign_load import load_between, wait_for_quiet

CPUS = psutil.cpu_count() or 1


def look(time_s, busy_frac, *processes, own=()):
    """A process is (pid, name, parent, own time, time of children): % of ten seconds of all."""
    second = CPUS / 10
    everything = {
        (pid, 0.0): ProcessTimes(
            parent_pid=parent, own_s=own_time * second, reaped_s=reaped * second, name=name
        )
        for pid, name, parent, own_time, reaped in processes
    }
    return CpuSnapshot(
        time_s=time_s,
        busy_s=busy_frac * 10 * CPUS,
        steal_s=None,
        total_s=time_s * CPUS,
        processes={key: times for key, times in everything.items() if key[0] in own},
        everything=everything,
    )


@pytest.mark.parametrize(
    ("before", "after", "foreign", "words"),
    [
        # Two programs of one name are one; the bench's own process is none, however busy.
        (
            [(7, "x", 1, 50, 0), (8, "x", 1, 0, 0), (9, "y", 1, 0, 0)],
            [(7, "x", 1, 70, 0), (8, "x", 1, 20, 0), (9, "y", 1, 30, 0), (3, "python", 1, 90, 0)],
            0.7,
            "x, 40%",
        ),
        # Compilers that began and ended meanwhile are in the sum of what waited for them.
        (
            [(7, "make", 1, 0, 100), (9, "y", 1, 0, 0)],
            [(7, "make", 1, 0, 150), (9, "y", 1, 30, 0)],
            0.8,
            "make, 50%",
        ),
        # A long job and its child ended: what they had used before is no use of this time.
        (
            [
                (7, "bash", 1, 0, 0),
                (8, "job", 7, 500, 0),
                (9, "part", 8, 900, 0),
                (6, "y", 1, 0, 0),
            ],
            [(7, "bash", 1, 0, 1410), (6, "y", 1, 30, 0)],
            0.4,
            "y, 30%",
        ),
        # In a container the others are not visible: sshd is not to blame.
        (
            [(7, "sshd", 1, 0, 0)],
            [(7, "sshd", 1, 1, 0)],
            0.6,
            "programs not visible from here, 60%",
        ),
    ],
)
def test_the_worst_program_is_named_with_its_share(before, after, foreign, words):
    # What the bench did itself is in the sum of the machine.
    busy_frac = foreign + sum(one[3] / 100 for one in after if one[0] == 3)
    load = load_between(look(0.0, 0.0, *before), look(10.0, busy_frac, *after, own=[3]))
    assert load.words == f"{words} of the processors"
    assert load.frac == pytest.approx(foreign, abs=0.01)


@pytest.mark.parametrize(
    ("busy_until_s", "is_quiet", "took_s"), [(0, True, 0.25), (12, True, 12.25), (99, False, 30.25)]
)
def test_a_wait_ends_with_the_noise_or_at_its_limit(monkeypatch, busy_until_s, is_quiet, took_s):
    now_s, said = 0.0, []

    def sleep(pause_s):
        nonlocal now_s
        now_s += pause_s

    def looked(*, siblings):
        assert siblings == [5]
        busy_s = min(now_s, busy_until_s)
        return look(now_s, busy_s / 10, (7, "make", 1, 10 * busy_s, 0))

    clock = SimpleNamespace(monotonic=lambda: now_s, sleep=sleep)
    monkeypatch.setattr(foreign_load, "time", clock)
    monkeypatch.setattr(foreign_load, "look", looked)
    assert wait_for_quiet(limit_s=30.0, siblings=[5], report=said.append) is is_quiet
    assert now_s == pytest.approx(took_s, abs=1.0)
    waited = ["waiting for quiet, at most 30 s: make, 100% of the processors"]
    assert said[:1] == waited * (busy_until_s > 0)
