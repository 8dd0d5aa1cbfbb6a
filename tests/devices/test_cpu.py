"""Usable cores and memory on made-up machines, and the arithmetic of processor noise."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.devices.host import cpu
from bench.devices.host.cgroup import cpu_quota, memory_limit_bytes
from bench.devices.host.cpu import group_siblings, parse_cpu_list
from bench.devices.host.cpu_noise import (
    CpuNoise,
    CpuSnapshot,
    ProcessTimes,
    all_processes,
    cpu_noise,
    descendants,
    take_snapshot,
)

GROUPS = "sys/fs/cgroup"


def make_machine(
    root: Path,
    files: dict[str, str],
    *,
    siblings: tuple[str, ...] = (),
    nodes: tuple[str, ...] = (),
) -> None:
    for cpu_ids in siblings:
        for cpu_id in parse_cpu_list(cpu_ids):
            folder = f"sys/devices/system/cpu/cpu{cpu_id}/topology"
            files = files | {f"{folder}/thread_siblings_list": f"{cpu_ids}\n"}
    for number, cpu_ids in enumerate(nodes):
        files = files | {f"sys/devices/system/node/node{number}/cpulist": f"{cpu_ids}\n"}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_cpu_list_with_ranges_and_single_ids_is_expanded() -> None:
    assert parse_cpu_list("0-2,8, 10-11\n") == (0, 1, 2, 8, 10, 11)
    assert parse_cpu_list("") == ()


@pytest.mark.parametrize(
    ("siblings", "allowed", "cores"),
    [
        (("0,4", "1,5"), [0, 1, 4, 5], ((0, 4), (1, 5))),
        # Affinity that cuts a core in half still counts it.
        (("0,4", "1,5"), [4, 5], ((4,), (5,))),
        ((), [0, 1], ((0,), (1,))),
    ],
)
def test_siblings_of_one_core_count_once(
    tmp_path: Path, siblings: tuple[str, ...], allowed: list[int], cores: tuple[tuple[int, ...]]
) -> None:
    make_machine(tmp_path, {}, siblings=siblings)
    assert group_siblings(allowed, root=tmp_path) == cores


@pytest.mark.parametrize(
    ("allowed", "nodes", "wanted", "cpu_ids"),
    [
        ((1, 2, 3), ("0-1", "2-3"), 2, (2, 3)),  # one memory node where it suffices
        ((1, 2, 3), ("0-1", "2-3"), 3, (1, 2, 3)),
        ((0, 1, 2, 3), ("0-3",), 1, (0,)),
        ((0, 1), ("0-3",), 9, (0, 1)),
    ],
)
def test_cores_are_picked_from_as_few_memory_nodes_as_can_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: tuple[int, ...],
    nodes: tuple[str, ...],
    wanted: int,
    cpu_ids: tuple[int, ...],
) -> None:
    monkeypatch.setattr(cpu, "allowed_cpu_ids", lambda: allowed)
    monkeypatch.setattr(cpu.platform, "system", lambda: "Linux")
    make_machine(tmp_path, {}, siblings=("0", "1", "2", "3"), nodes=nodes)
    assert cpu.usable_cpu_ids(num_cores=wanted, root=tmp_path) == cpu_ids


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        # Version 2: the smallest of all ancestors.
        (
            "0::/slice/job",
            {
                "slice/job/cpu.max": "max 100000\n",
                "slice/cpu.max": "250000 100000\n",
                "cpu.max": "800000 100000\n",
            },
            2.5,
        ),
        # Version 1, by the joint controller, and without a quota.
        (
            "4:cpu,cpuacct:/docker/abc",
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            1.5,
        ),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_a_quota_is_read_in_both_versions(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    groups = {f"{GROUPS}/{name}": text for name, text in files.items()}
    make_machine(tmp_path, {"proc/self/cgroup": membership + "\n", **groups})
    assert cpu_quota(root=tmp_path) == quota


def test_quota_is_rounded_down_but_never_to_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "allowed_cpu_ids", lambda: (0, 1, 2, 3))
    monkeypatch.setattr(cpu.platform, "system", lambda: "Linux")
    make_machine(tmp_path, {"proc/self/cgroup": "0::/\n"}, siblings=("0", "1", "2", "3"))
    found = []
    for quota in ("max", "290000", "40000"):
        make_machine(tmp_path, {f"{GROUPS}/cpu.max": f"{quota} 100000\n"})
        found.append(cpu.usable_cores(root=tmp_path))
    assert found == [4, 2, 1]


def test_memory_limit_of_a_group_is_honoured_in_both_versions(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        f"{GROUPS}/memory.max": f"{2**20}\n",
        f"{GROUPS}/memory.current": f"{3 * 2**18}\n",
        f"{GROUPS}/memory.stat": f"anon 5\ninactive_file {2**18}\n",
    }
    make_machine(tmp_path, files)
    assert cpu.usable_memory_bytes(root=tmp_path) == 2**20
    assert cpu.free_memory_bytes(root=tmp_path) == 2**19
    old = tmp_path / "old"
    for limit, found in ((2**21, 2**21), (9223372036854771712, None)):  # the second: no limit
        name = f"{GROUPS}/memory/job/memory.limit_in_bytes"
        make_machine(old, {"proc/self/cgroup": "3:memory:/job\n", name: f"{limit}\n"})
        assert memory_limit_bytes(root=old) == found


def test_this_machine_has_at_least_one_core_and_some_memory() -> None:
    cpu_ids = cpu.usable_cpu_ids()
    assert len(cpu_ids) == cpu.usable_cores() >= 1
    assert set(cpu_ids) <= set(cpu.allowed_cpu_ids())
    assert 0 < cpu.free_memory_bytes() <= cpu.usable_memory_bytes()


def test_processes_are_read_whatever_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu.platform, "system", lambda: "Linux")
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    fields = "S 7 0 0 0 -1 0 0 0 42 0 150 50 300 100 20 0 1 0 900 0 0"
    files = {"12/stat": f"12 (odd ) name) {fields}", "13/stat": "", "13/status": "", "net/stat": ""}
    make_machine(tmp_path, {f"proc/{name}": text for name, text in files.items()})
    times = ProcessTimes(parent_pid=7, own_s=2.0, reaped_s=4.0, major_faults=42)
    assert all_processes(root=tmp_path) == {(12, 9.0): times}


def test_descendants_are_found_at_every_depth() -> None:
    parents = {1: 0, 2: 1, 3: 2, 4: 1}
    tree = {
        (pid, 0.0): ProcessTimes(parent_pid=parent, own_s=0.0, reaped_s=0.0)
        for pid, parent in parents.items()
    }
    assert descendants(tree, pids=[2]) == {(2, 0.0), (3, 0.0)}
    assert descendants(tree, pids=[99]) == set()


def process(own_s: float, *, reaped_s: float = 0.0) -> ProcessTimes:
    return ProcessTimes(parent_pid=0, own_s=own_s, reaped_s=reaped_s)


def snapshot(
    time_s: float,
    busy_s: float,
    *processes: ProcessTimes,
    steal_s: float | None = 0.0,
    faults: int | None = None,
    switches: int | None = None,
) -> CpuSnapshot:
    return CpuSnapshot(
        time_s=time_s,
        busy_s=busy_s,
        steal_s=steal_s,
        total_s=time_s * 2,
        processes={(pid, 0.0): times for pid, times in enumerate(processes)},
        faults={} if faults is None else {(0, 0.0): faults},
        switches={} if switches is None else {((0, 0.0), "0"): switches},
    )


@pytest.mark.parametrize(
    ("taken", "window_s", "expected"),
    [
        # One of two cores hogged. In 10 s they worked 16 s: 6 s for the trial, 10 s for others.
        (
            [
                snapshot(0.0, 0.0, process(0.0), faults=3, switches=0),
                snapshot(10.0, 16.0, process(6.0), faults=13, switches=500, steal_s=1.0),
            ],
            (0.0, 10.0),
            {
                "own_cpu_frac": 0.3,
                "foreign_cpu_frac": 0.5,
                "steal_frac": 0.05,
                "involuntary_switches_per_s": 50.0,
                "major_faults_per_s": 1.0,
            },
        ),
        # 1 s of foreign work in the first 2 s, none later: interpolated at the window's edges.
        (
            [
                snapshot(0.0, 0.0, process(0.0)),
                snapshot(2.0, 3.0, process(2.0)),
                snapshot(4.0, 5.0, process(4.0)),
            ],
            (1.0, 3.0),
            {"own_cpu_frac": 0.5, "foreign_cpu_frac": 0.5 / 4.0},
        ),
        # A worker used 3 s, 1 s of it after the first snapshot, and was then waited for.
        (
            [
                snapshot(0.0, 0.0, process(1.0), process(2.0)),
                snapshot(4.0, 4.0, process(4.0, reaped_s=3.0)),
            ],
            (0.0, 4.0),
            {"own_cpu_frac": 0.5, "foreign_cpu_frac": 0.0},
        ),
        # A child that nobody waited for does not make own time negative.
        (
            [
                snapshot(0.0, 0.0, process(0.0), process(50.0)),
                snapshot(4.0, 4.0, process(4.0)),
            ],
            (0.0, 4.0),
            {"own_cpu_frac": 0.5},
        ),
        # A child ended while /proc was being read: gone at first, in its parent's sum later.
        (
            [
                snapshot(0.0, 0.0, process(0.0), process(90.0)),
                snapshot(1.0, 2.0, process(1.0)),
                snapshot(2.0, 4.0, process(2.0, reaped_s=90.0)),
            ],
            (0.0, 2.0),
            {"own_cpu_frac": 0.5, "foreign_cpu_frac": 0.5},
        ),
        # 100 switches in 2 s; the trial ends after the window, before the third snapshot.
        (
            [
                snapshot(0.0, 0.0, process(0.0), faults=0, switches=0),
                snapshot(2.0, 0.0, process(2.0), faults=4, switches=100),
                snapshot(3.0, 0.0),
            ],
            (1.0, 2.5),
            {"involuntary_switches_per_s": 50.0, "major_faults_per_s": 2.0},
        ),
        # What the system does not count stays blank.
        (
            [
                snapshot(0.0, 0.0, process(0.0), steal_s=None),
                snapshot(1.0, 1.0, process(1.0), steal_s=None),
            ],
            (0.0, 1.0),
            {
                "own_cpu_frac": 0.5,
                "steal_frac": None,
                "involuntary_switches_per_s": None,
                "major_faults_per_s": None,
            },
        ),
    ],
)
def test_use_of_the_processor_in_a_window(
    taken: list[CpuSnapshot], window_s: tuple[float, float], expected: dict[str, float | None]
) -> None:
    noise = cpu_noise(taken, start_s=window_s[0], end_s=window_s[1], num_cores=2)
    assert {name: getattr(noise, name) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("window_s", [(0.5, 2.0), (1.0, 2.5), (1.5, 1.5)])
def test_window_that_snapshots_do_not_cover_is_blank(window_s: tuple[float, float]) -> None:
    for taken in ([snapshot(1.0, 0.0), snapshot(2.0, 1.0)], []):
        noise = cpu_noise(taken, start_s=window_s[0], end_s=window_s[1], num_cores=2)
        assert noise == CpuNoise()


growths = st.tuples(*[st.floats(0.0, 5.0) for _ in range(4)], st.floats(0.1, 2.0))


@given(
    growths=st.lists(growths, min_size=1, max_size=6),
    edges=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
)
def test_shares_lie_between_zero_and_one(
    growths: list[tuple[float, float, float, float, float]], edges: tuple[float, float]
) -> None:
    sums = [0.0] * 5
    taken = [snapshot(0.0, 0.0, process(0.0))]
    for growth in growths:
        sums = [total + one for total, one in zip(sums, growth, strict=True)]
        busy_s, steal_s, own_s, reaped_s, now_s = sums
        taken.append(snapshot(now_s, busy_s, process(own_s, reaped_s=reaped_s), steal_s=steal_s))
    start_s, end_s = sorted(edge * sums[-1] for edge in edges)
    noise = cpu_noise(taken, start_s=start_s, end_s=end_s, num_cores=2)
    for share in (noise.own_cpu_frac, noise.foreign_cpu_frac, noise.steal_frac):
        assert share is None or 0.0 <= share <= 1.0


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="snapshots of threads need Linux /proc")
def test_a_program_outside_the_tree_counts_as_foreign_and_one_inside_as_own() -> None:
    """Loose bounds only: other programs may be busy here too."""
    spin = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
    child = subprocess.Popen([sys.executable, "-c", spin])
    try:
        time.sleep(0.3)
        first = take_snapshot(child.pid)
        time.sleep(0.8)
        last = take_snapshot(child.pid)
    finally:
        child.kill()
        child.wait()
    noise = cpu_noise([first, last], start_s=first.time_s, end_s=last.time_s, num_cores=1)
    assert noise.own_cpu_frac is not None and noise.own_cpu_frac > 0.1
    assert noise.involuntary_switches_per_s is not None
    # Faults and switches are the trial's alone, not those of the harness around it.
    assert {pid for pid, _ in last.faults} == {child.pid}
    assert {process[0] for process, _ in last.switches} == {child.pid}
    pids = {pid for pid, _ in last.processes}
    assert {os.getpid(), child.pid} <= pids and 1 not in pids
    # The same counters, with the child left out of the tree, make it foreign.
    kept = [key for key in first.processes if key[0] != child.pid]
    alone = [
        replace(one, processes={key: one.processes[key] for key in kept}) for one in (first, last)
    ]
    outside = cpu_noise(alone, start_s=first.time_s, end_s=last.time_s, num_cores=1)
    assert outside.foreign_cpu_frac is not None and noise.foreign_cpu_frac is not None
    assert outside.foreign_cpu_frac > noise.foreign_cpu_frac
    assert outside.foreign_cpu_frac > 0.1 / (psutil.cpu_count() or 1)
