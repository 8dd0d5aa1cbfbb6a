"""Usable cores and memory on made-up machines, and the arithmetic of processor noise."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.devices.host import cpu
from bench.devices.host.cgroup import cpu_quota, memory_left_bytes, memory_limit_bytes
from bench.devices.host.cpu_noise import CpuNoise, CpuSnapshot, cpu_noise, take_snapshot
from bench.devices.host.cpu_topology import group_siblings, numa_nodes, parse_cpu_list, pick_cpus
from bench.devices.host.processes import ProcessTimes, descendants, parse_stat


def write(root: Path, name: str, text: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def make_machine(root: Path, *, siblings: list[str], nodes: list[str]) -> None:
    for cpu_ids in siblings:
        for cpu_id in parse_cpu_list(cpu_ids):
            topology = f"sys/devices/system/cpu/cpu{cpu_id}/topology"
            write(root, f"{topology}/thread_siblings_list", cpu_ids + "\n")
    for number, cpu_ids in enumerate(nodes):
        write(root, f"sys/devices/system/node/node{number}/cpulist", cpu_ids + "\n")


def use_cpus(monkeypatch: pytest.MonkeyPatch, *cpu_ids: int) -> None:
    monkeypatch.setattr(cpu, "allowed_cpu_ids", lambda: cpu_ids)


def test_cpu_list_with_ranges_and_single_ids_is_expanded() -> None:
    assert parse_cpu_list("0-2,8, 10-11\n") == (0, 1, 2, 8, 10, 11)
    assert parse_cpu_list("") == ()


def test_siblings_of_one_core_count_once(tmp_path: Path) -> None:
    make_machine(tmp_path, siblings=["0,4", "1,5"], nodes=[])
    assert group_siblings([0, 1, 4, 5], root=tmp_path) == ((0, 4), (1, 5))


def test_affinity_that_cuts_a_core_in_half_still_counts_it(tmp_path: Path) -> None:
    make_machine(tmp_path, siblings=["0,4", "1,5"], nodes=[])
    assert group_siblings([4, 5], root=tmp_path) == ((4,), (5,))


def test_unknown_topology_counts_every_processor_as_a_core(tmp_path: Path) -> None:
    assert group_siblings([0, 1], root=tmp_path) == ((0,), (1,))


def test_one_memory_node_is_used_where_it_suffices(tmp_path: Path) -> None:
    make_machine(tmp_path, siblings=["0", "1", "2", "3"], nodes=["0-1", "2-3"])
    cores = group_siblings([1, 2, 3], root=tmp_path)
    nodes = numa_nodes(root=tmp_path)
    assert pick_cpus(cores, nodes=nodes, num_cores=2) == (2, 3)
    assert pick_cpus(cores, nodes=nodes, num_cores=3) == (1, 2, 3)


def test_version_two_quota_is_the_smallest_of_all_ancestors(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/slice/job\n")
    write(tmp_path, "sys/fs/cgroup/slice/job/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/slice/cpu.max", "250000 100000\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "800000 100000\n")
    assert cpu_quota(root=tmp_path) == 2.5


def test_version_one_quota_is_read_from_the_joint_controller(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(root=tmp_path) == 1.5


def test_version_one_without_quota_is_no_limit(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "4:cpu:/\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(root=tmp_path) is None


def test_quota_is_rounded_down_but_never_to_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cpus(monkeypatch, 0, 1, 2, 3)
    make_machine(tmp_path, siblings=["0", "1", "2", "3"], nodes=["0-3"])
    monkeypatch.setattr(cpu.platform, "system", lambda: "Linux")
    assert cpu.usable_cores(root=tmp_path) == 4
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "290000 100000\n")
    assert cpu.usable_cores(root=tmp_path) == 2
    assert cpu.usable_cpu_ids(root=tmp_path) == (0, 1)
    write(tmp_path, "sys/fs/cgroup/cpu.max", "40000 100000\n")
    assert cpu.usable_cores(root=tmp_path) == 1


def test_asking_for_fewer_cores_gives_fewer_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cpus(monkeypatch, 0, 1, 2, 3)
    monkeypatch.setattr(cpu.platform, "system", lambda: "Linux")
    make_machine(tmp_path, siblings=["0,2", "1,3"], nodes=["0-3"])
    assert cpu.usable_cpu_ids(num_cores=1, root=tmp_path) == (0,)
    assert cpu.usable_cpu_ids(num_cores=9, root=tmp_path) == (0, 1)


def test_memory_limit_of_a_group_is_honoured_in_both_versions(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", f"{2**20}\n")
    write(tmp_path, "sys/fs/cgroup/memory.current", f"{3 * 2**18}\n")
    write(tmp_path, "sys/fs/cgroup/memory.stat", f"anon 5\ninactive_file {2**18}\n")
    assert cpu.usable_memory_bytes(root=tmp_path) == 2**20
    assert memory_left_bytes(root=tmp_path) == 2**19
    assert cpu.free_memory_bytes(root=tmp_path) == 2**19
    old = tmp_path / "old"
    write(old, "proc/self/cgroup", "3:memory:/job\n")
    write(old, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{2**21}\n")
    assert memory_limit_bytes(root=old) == 2**21


def test_no_limit_in_version_one_is_not_a_limit(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "3:memory:/\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit_bytes(root=tmp_path) is None
    assert cpu.usable_memory_bytes(root=tmp_path) == psutil.virtual_memory().total


def test_cpu_model_is_read_from_the_kernel(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert cpu.cpu_model(root=tmp_path) == "Some CPU @ 2 GHz"


def test_this_machine_has_at_least_one_core_and_some_memory() -> None:
    cpu_ids = cpu.usable_cpu_ids()
    assert len(cpu_ids) == cpu.usable_cores() >= 1
    assert set(cpu_ids) <= set(cpu.allowed_cpu_ids())
    assert 0 < cpu.free_memory_bytes() <= cpu.usable_memory_bytes()


def test_a_process_name_with_brackets_and_spaces_is_parsed() -> None:
    fields = "S 7 0 0 0 -1 0 0 0 42 0 150 50 300 100 20 0 1 0 900 0 0"
    parsed = parse_stat(f"12 (odd ) name) {fields}", ticks_per_s=100.0)
    assert parsed is not None
    key, times = parsed
    assert key == (12, 9.0)
    assert times == ProcessTimes(parent_pid=7, own_s=2.0, reaped_s=4.0, major_faults=42)
    assert parse_stat("", ticks_per_s=100.0) is None


def test_descendants_are_found_at_every_depth() -> None:
    def child_of(parent_pid: int) -> ProcessTimes:
        return ProcessTimes(parent_pid=parent_pid, own_s=0.0, reaped_s=0.0)

    tree = {
        (1, 0.0): child_of(0),
        (2, 0.0): child_of(1),
        (3, 0.0): child_of(2),
        (4, 0.0): child_of(1),
    }
    assert descendants(tree, pids=[2]) == {(2, 0.0), (3, 0.0)}
    assert descendants(tree, pids=[99]) == set()


def process(
    *, own_s: float, reaped_s: float = 0.0, faults: int | None = None, switches: int | None = None
) -> ProcessTimes:
    return ProcessTimes(
        parent_pid=0,
        own_s=own_s,
        reaped_s=reaped_s,
        major_faults=faults,
        switches_by_thread=None if switches is None else {1: switches},
        is_trial=True,
    )


def snapshot(
    time_s: float,
    *,
    busy_s: float,
    num_cpus: int = 2,
    steal_s: float | None = 0.0,
    **processes: ProcessTimes,
) -> CpuSnapshot:
    return CpuSnapshot(
        time_s=time_s,
        busy_s=busy_s,
        steal_s=steal_s,
        total_s=time_s * num_cpus,
        processes={(int(name[1:]), 0.0): times for name, times in processes.items()},
    )


def test_one_of_two_cores_hogged_is_half_foreign() -> None:
    # In 10 s the machine's 2 cores worked 16 s: 6 s for the trial, 10 s for somebody else.
    taken = [
        snapshot(0.0, busy_s=0.0, p1=process(own_s=0.0, faults=3, switches=0)),
        snapshot(10.0, busy_s=16.0, p1=process(own_s=6.0, faults=13, switches=500)),
    ]
    noise = cpu_noise(taken, start_s=0.0, end_s=10.0, num_cores=2)
    assert noise == CpuNoise(
        own_cpu_frac=0.3,
        foreign_cpu_frac=0.5,
        steal_frac=0.0,
        involuntary_switches_per_s=50.0,
        major_faults_per_s=1.0,
    )


def test_counters_are_interpolated_at_the_edges_of_the_window() -> None:
    # 1 s of foreign work in the first 2 s, none later; the window is the second 1 to the second 3.
    taken = [
        snapshot(0.0, busy_s=0.0, p1=process(own_s=0.0)),
        snapshot(2.0, busy_s=3.0, p1=process(own_s=2.0)),
        snapshot(4.0, busy_s=5.0, p1=process(own_s=4.0)),
    ]
    noise = cpu_noise(taken, start_s=1.0, end_s=3.0, num_cores=2)
    assert noise.own_cpu_frac == pytest.approx(0.5)
    assert noise.foreign_cpu_frac == pytest.approx(0.5 / 4.0)


def test_time_of_an_ended_and_waited_for_child_is_not_lost() -> None:
    # The worker (p2) used 3 s, 1 s of it after the first snapshot, and was then waited for by p1.
    taken = [
        snapshot(0.0, busy_s=0.0, p1=process(own_s=1.0), p2=process(own_s=2.0)),
        snapshot(4.0, busy_s=4.0, p1=process(own_s=4.0, reaped_s=3.0)),
    ]
    noise = cpu_noise(taken, start_s=0.0, end_s=4.0, num_cores=2)
    assert noise.foreign_cpu_frac == pytest.approx(0.0)
    assert noise.own_cpu_frac == pytest.approx(0.5)


def test_child_that_nobody_waited_for_does_not_make_own_time_negative() -> None:
    taken = [
        snapshot(0.0, busy_s=0.0, p1=process(own_s=0.0), p2=process(own_s=50.0)),
        snapshot(4.0, busy_s=4.0, p1=process(own_s=4.0)),
    ]
    assert cpu_noise(taken, start_s=0.0, end_s=4.0, num_cores=2).own_cpu_frac == pytest.approx(0.5)


def test_child_that_was_missed_once_is_not_counted_twice() -> None:
    # p2 ended while /proc was being read: gone from the second snapshot, in p1's sum in the third.
    taken = [
        snapshot(0.0, busy_s=0.0, p1=process(own_s=0.0), p2=process(own_s=90.0)),
        snapshot(1.0, busy_s=2.0, p1=process(own_s=1.0)),
        snapshot(2.0, busy_s=4.0, p1=process(own_s=2.0, reaped_s=90.0)),
    ]
    noise = cpu_noise(taken, start_s=0.0, end_s=2.0, num_cores=2)
    assert noise.own_cpu_frac == pytest.approx(0.5)
    assert noise.foreign_cpu_frac == pytest.approx(0.5)


def test_faults_of_the_harness_are_not_the_trials() -> None:
    def harness(faults: int) -> ProcessTimes:
        return ProcessTimes(parent_pid=0, own_s=0.0, reaped_s=0.0, major_faults=faults)

    taken = [snapshot(0.0, busy_s=0.0, p1=harness(0)), snapshot(1.0, busy_s=0.0, p1=harness(9))]
    assert cpu_noise(taken, start_s=0.0, end_s=1.0, num_cores=2).major_faults_per_s is None


def test_switches_are_a_rate_of_the_time_in_which_the_trial_was_seen() -> None:
    # 100 switches in 2 s; the trial ends right after the window, before the third snapshot.
    taken = [
        snapshot(0.0, busy_s=0.0, p1=process(own_s=0.0, faults=0, switches=0)),
        snapshot(2.0, busy_s=0.0, p1=process(own_s=2.0, faults=4, switches=100)),
        snapshot(3.0, busy_s=0.0),
    ]
    noise = cpu_noise(taken, start_s=1.0, end_s=2.5, num_cores=2)
    assert noise.involuntary_switches_per_s == pytest.approx(50.0)
    assert noise.major_faults_per_s == pytest.approx(2.0)


def test_window_that_snapshots_do_not_cover_is_blank() -> None:
    taken = [snapshot(1.0, busy_s=0.0), snapshot(2.0, busy_s=1.0)]
    assert cpu_noise(taken, start_s=0.5, end_s=2.0, num_cores=2) == CpuNoise()
    assert cpu_noise(taken, start_s=1.0, end_s=2.5, num_cores=2) == CpuNoise()
    assert cpu_noise([], start_s=0.0, end_s=1.0, num_cores=2) == CpuNoise()
    assert cpu_noise(taken, start_s=1.5, end_s=1.5, num_cores=2) == CpuNoise()


def test_what_the_system_does_not_count_stays_blank() -> None:
    taken = [
        snapshot(0.0, busy_s=0.0, steal_s=None, p1=process(own_s=0.0)),
        snapshot(1.0, busy_s=1.0, steal_s=None, p1=process(own_s=1.0)),
    ]
    noise = cpu_noise(taken, start_s=0.0, end_s=1.0, num_cores=2)
    assert noise.steal_frac is None
    assert noise.involuntary_switches_per_s is None
    assert noise.major_faults_per_s is None
    assert noise.own_cpu_frac == pytest.approx(0.5)


growths = st.lists(
    st.tuples(*[st.floats(0.0, 5.0) for _ in range(4)], st.floats(0.1, 2.0)),
    min_size=1,
    max_size=6,
)


@given(growths=growths, edges=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)))
def test_shares_lie_between_zero_and_one(
    growths: list[tuple[float, float, float, float, float]], edges: tuple[float, float]
) -> None:
    now_s = busy_s = steal_s = own_s = reaped_s = 0.0
    taken = [snapshot(0.0, busy_s=0.0, p1=process(own_s=0.0))]
    for busy, steal, own, reaped, step_s in growths:
        now_s, busy_s, steal_s = now_s + step_s, busy_s + busy, steal_s + steal
        own_s, reaped_s = own_s + own, reaped_s + reaped
        times = process(own_s=own_s, reaped_s=reaped_s)
        taken.append(snapshot(now_s, busy_s=busy_s, steal_s=steal_s, p1=times))
    start_s, end_s = sorted(edge * now_s for edge in edges)
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
    assert noise.own_cpu_frac is not None
    assert noise.own_cpu_frac > 0.1
    assert noise.involuntary_switches_per_s is not None
    pids = {pid for pid, _ in last.processes}
    assert {os.getpid(), child.pid} <= pids
    assert 1 not in pids
    # The same counters, with the child left out of the tree, make it foreign.
    keys = [key for key in first.processes if key[0] != child.pid]
    alone = [
        CpuSnapshot(
            time_s=one.time_s,
            busy_s=one.busy_s,
            steal_s=one.steal_s,
            total_s=one.total_s,
            processes={key: one.processes[key] for key in keys},
        )
        for one in (first, last)
    ]
    outside = cpu_noise(alone, start_s=first.time_s, end_s=last.time_s, num_cores=1)
    assert outside.foreign_cpu_frac is not None
    assert noise.foreign_cpu_frac is not None
    assert outside.foreign_cpu_frac > noise.foreign_cpu_frac
    assert outside.foreign_cpu_frac > 0.1 / (psutil.cpu_count() or 1)
