"""Who else uses the processor: hand-worked tables of processes, and a wait on a made-up clock."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from bench.devices.host import foreign_load
from bench.devices.host.cpu_noise import CpuSnapshot, ProcessTimes, all_processes
from bench.devices.host.foreign_load import Look, load_between, wait_for_quiet

CPUS = psutil.cpu_count() or 1


def look(time_s, busy_s, *processes, own=()):
    """A process is (pid, name, parent, own seconds, seconds of children waited for)."""
    everything = {
        (pid, 0.0): ProcessTimes(parent_pid=parent, own_s=own_s, reaped_s=reaped_s, name=name)
        for pid, name, parent, own_s, reaped_s in processes
    }
    snapshot = CpuSnapshot(
        time_s=time_s,
        busy_s=busy_s * CPUS,
        steal_s=None,
        total_s=time_s * CPUS,
        processes={key: times for key, times in everything.items() if key[0] in own},
        switches={},
        faults={},
    )
    return Look(snapshot=snapshot, everything=everything)


def used(share):
    """CPU seconds that are this share of ten seconds of the machine."""
    return 10.0 * CPUS * share


@pytest.mark.parametrize(
    ("before", "after", "own", "foreign", "words"),
    [
        # Two programs of one name are one; the bench's own process is none, however busy.
        (
            [(7, "x", 1, 50.0, 0.0), (8, "x", 1, 0.0, 0.0), (9, "y", 1, 0.0, 0.0)],
            [(7, "x", 1, 50.0 + used(0.2), 0.0), (8, "x", 1, used(0.2), 0.0)]
            + [(9, "y", 1, used(0.3), 0.0), (3, "python", 1, used(0.9), 0.0)],
            (3,),
            0.7,
            "x, 40% of the processors",
        ),
        # Compilers that began and ended meanwhile are in the sum of what waited for them.
        (
            [(7, "make", 1, 0.0, 100.0), (9, "y", 1, 0.0, 0.0)],
            [(7, "make", 1, 0.0, 100.0 + used(0.5)), (9, "y", 1, used(0.3), 0.0)],
            (),
            0.8,
            "make, 50% of the processors",
        ),
        # A long job and its child ended: what they had used before is no use of this time.
        (
            [(7, "bash", 1, 0.0, 0.0), (8, "job", 7, 500.0, 0.0), (9, "part", 8, 900.0, 0.0)]
            + [(10, "y", 1, 0.0, 0.0)],
            [(7, "bash", 1, 0.0, 1400.0 + used(0.1)), (10, "y", 1, used(0.3), 0.0)],
            (),
            0.4,
            "y, 30% of the processors",
        ),
        # In a container the others are not visible: sshd is not to blame.
        (
            [(7, "sshd", 1, 0.0, 0.0)],
            [(7, "sshd", 1, used(0.01), 0.0)],
            (),
            0.6,
            "programs not visible from here, 60% of the processors",
        ),
    ],
)
def test_the_worst_program_is_named_with_its_share(before, after, own, foreign, words):
    # What it did itself is in the sum of the machine.
    busy_s = 10.0 * foreign + sum(one[3] for one in after if one[0] in own) / CPUS
    load = load_between(look(0.0, 0.0, *before), look(10.0, busy_s, *after, own=own))
    assert load.words == words
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
        return look(now_s, busy_s, (7, "make", 1, busy_s * CPUS, 0.0))

    clock = SimpleNamespace(monotonic=lambda: now_s, sleep=sleep)
    monkeypatch.setattr(foreign_load, "time", clock)
    monkeypatch.setattr(foreign_load, "look", looked)
    assert wait_for_quiet(limit_s=30.0, siblings=[5], report=said.append) is is_quiet
    assert now_s == pytest.approx(took_s, abs=1.0)
    assert bool(said) == (busy_until_s > 0)
    assert said[:1] in ([], ["waiting for quiet, at most 30 s: make, 100% of the processors"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_program_has_the_name_of_its_command_and_no_arguments(tmp_path: Path):
    program = tmp_path / "odd) (name"
    shutil.copy(shutil.which("sleep"), program)
    with subprocess.Popen([program, "60"]) as process:
        found = all_processes(root=Path("/"))
        process.kill()
    names = {key[0]: times.name for key, times in found.items()}
    assert names[process.pid] == "odd) (name"
    assert names[os.getpid()] == psutil.Process().name()[:15]
