"""Usable cores and memory, facts of made-up machines, and the arithmetic of processor noise."""

import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.devices.host import cpu
from bench.devices.host.cgroup import cpu_quota, memory_limit_bytes
from bench.devices.host.cpu import machine_facts
from bench.devices.host.cpu_noise import (
    CpuSnapshot,
    ProcessTimes,
    all_processes,
    cpu_noise,
    descendants,
    take_snapshot,
)
from tests.devices.recorded_drivers import make_tree

GROUPS = "sys/fs/cgroup"


NESTED = {
    "slice/job/cpu.max": "max 100000\n",
    "slice/cpu.max": "250000 100000\n",
    "cpu.max": "800000 100000\n",
}


def version_1(controller, quota_us):
    folder = f"{controller}/cpu.cfs_"
    return {f"{folder}quota_us": quota_us, f"{folder}period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "quota", "num_cores"),
    [
        # Version 2: the smallest of all ancestors. It is rounded down but never to zero.
        ("0::/slice/job", NESTED, 2.5, 2),
        ("0::/", {"cpu.max": "40000 100000"}, 0.4, 1),
        *(("0::/", {"cpu.max": text}, None, 4) for text in ("max 100000", "", "1 2 3")),
        # Version 1, by the joint controller, and without a quota.
        ("4:cpu,cpuacct:/docker/abc", version_1("cpu,cpuacct", "150000\n"), 1.5, 1),
        ("4:cpu:/", version_1("cpu", "-1\n"), None, 4),
    ],
)
def test_a_quota_is_read_in_both_versions(machine, membership, files, quota, num_cores):
    groups = {f"{GROUPS}/{name}": text for name, text in files.items()}
    groups["proc/self/cgroup"] = f"{membership}\n"
    root = machine(groups)
    assert cpu_quota(root=root) == quota
    assert cpu.usable_cores(root=root) == num_cores


NEW = "cgroup2 cgroup rw,nsdelegate"
CPUACCT = "cpuacct,cpu"


@pytest.mark.parametrize(
    ("membership", "mounts", "quotas_us", "quota"),
    [
        # A container of version 1 that sees its own group as the top, with one more in it.
        (
            f"4:{CPUACCT}:/docker/abc/job/step",
            [f"/docker/abc {CPUACCT}"],
            {CPUACCT: 400_000, f"{CPUACCT}/job": 150_000, f"{CPUACCT}/job/step": -1},
            1.5,
        ),
        # The same in version 2, with the names of the host.
        ("0::/kubepods/pod1/in", ["/kubepods/pod1 ."], {"in": 50_000, ".": "max"}, 0.5),
        # A space in the name; a joint mount that is named the other way.
        ("3:cpu:/job", ["/ my\\040groups/cpu"], {"my groups/cpu/job": 220_000}, 2.2),
        # A hybrid: version 2 is there and has no controller.
        ("0::/user\n3:cpu:/a/b", ["/ .", "/ cpu"], {"cpu/a": 70_000, "cpu/a/b": 90_000}, 0.7),
        # A group of the host that is not mounted here: only the top is looked at.
        ("0::/system.slice/x", ["/other ."], {".": 300_000, "x": 1}, 3.0),
    ],
)
def test_the_smallest_quota_on_the_way_up_counts_and_is_recorded(
    machine, membership, mounts, quotas_us, quota
):
    lines, files = [], {"proc/self/cgroup": membership}
    for mount in mounts:
        top, _, place = mount.partition(" ")
        kind = NEW if place == "." else f"cgroup cgroup rw,{place.rpartition('/')[2]}"
        lines.append(f"1 0 0:1 {top} /{GROUPS}/{place.strip('.')} rw - {kind}")
    files["proc/self/mountinfo"] = "\n".join(lines)
    for name, quota_us in quotas_us.items():
        new = {f"{name}/cpu.max": f"{quota_us} 100000"}
        made = version_1(name, str(quota_us)) if "cpu" in name else new
        files |= {f"{GROUPS}/{file}": text for file, text in made.items()}
    root = machine(files)
    assert cpu_quota(root=root) == quota
    assert machine_facts(root=root, environ={})["cpu"]["cgroup_cpus"] == quota


LINES = st.lists(
    st.text(st.sampled_from("0:/ -.cpu,group2\\0412\t\x00é"), max_size=40)
    | st.sampled_from(
        ["0::/../x", "4:cpu:/a", f"1 0 0:1 /a /sys - {NEW}", "1 0 0:1 / / rw - cgroup"]
    ),
    max_size=5,
).map("\n".join)


@given(membership=LINES, mounts=LINES, quota=LINES)
def test_no_text_of_the_kernel_upsets_the_reader(membership, mounts, quota):
    with TemporaryDirectory() as folder:
        files = {"proc/self/cgroup": membership, "proc/self/mountinfo": mounts}
        make_tree(Path(folder), {**files, "sys/cpu.max": quota, "sys/fs/cgroup/cpu.max": quota})
        found = cpu_quota(root=Path(folder))
        assert found is None or found >= 0
        assert memory_limit_bytes(root=Path(folder)) is None


def test_memory_limit_of_a_group_is_honoured_in_both_versions(machine):
    files = {
        "proc/self/cgroup": "0::/\n",
        f"{GROUPS}/memory.max": f"{2**20}\n",
        f"{GROUPS}/memory.current": f"{3 * 2**18}\n",
        f"{GROUPS}/memory.stat": f"anon 5\ninactive_file {2**18}\n",
    }
    root = machine(files)
    assert cpu.usable_memory_bytes(root=root) == 2**20
    assert cpu.free_memory_bytes(root=root) == 2**19
    (root / GROUPS / "memory.max").unlink()
    for limit, found in ((2**21, 2**21), (9223372036854771712, None)):  # the second: no limit
        name = f"{GROUPS}/memory/job/memory.limit_in_bytes"
        machine({"proc/self/cgroup": "3:memory:/job\n", name: f"{limit}\n"})
        assert memory_limit_bytes(root=root) == found


def test_processes_are_read_whatever_their_name_and_found_at_every_depth(machine, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    fields = "S 7 0 0 0 -1 0 0 0 42 0 150 50 300 100 20 0 1 0 900 0 0"
    files = {"12/stat": f"12 (odd ) name) {fields}", "13/stat": "", "14/status": "", "net/stat": ""}
    root = machine({f"proc/{name}": text for name, text in files.items()})
    times = ProcessTimes(parent_pid=7, own_s=2.0, reaped_s=4.0, major_faults=42, name="odd ) name")
    assert all_processes(root=root) == {(12, 9.0): times}
    tree = {
        (pid, 0.0): replace(times, parent_pid=parent)
        for pid, parent in {1: 0, 2: 1, 3: 2, 4: 1, 5: 3}.items()
    }
    assert descendants(tree, pids=[2]) == {(2, 0.0), (3, 0.0), (5, 0.0)}
    assert descendants(tree, pids=[99]) == set()


def shot(time_s, busy_s, *used_s, steal_s=0.0, counts=None) -> CpuSnapshot:
    """`used_s` is each process's own time, or own and waited-for; `counts` faults and switches."""
    pairs = [one if isinstance(one, tuple) else (one, 0.0) for one in used_s]
    return CpuSnapshot(
        time_s=time_s,
        busy_s=busy_s,
        steal_s=steal_s,
        total_s=time_s * 2,
        processes={
            (pid, 0.0): ProcessTimes(parent_pid=0, own_s=own_s, reaped_s=reaped_s)
            for pid, (own_s, reaped_s) in enumerate(pairs)
        },
        faults={} if counts is None else {(0, 0.0): counts[0]},
        switches={} if counts is None else {((0, 0.0), "0"): counts[1]},
    )


HOGGED = [shot(0, 0, 0.0, counts=(3, 0)), shot(10, 16, 6.0, counts=(13, 500), steal_s=1)]
COUNTED = [shot(0, 0, 0.0, counts=(0, 0)), shot(2, 0, 2.0, counts=(4, 100))]


@pytest.mark.parametrize(
    ("taken", "window_s", "expected"),
    [
        # One of two cores hogged. In 10 s they worked 16 s: 6 s for the trial, 10 s for others.
        (HOGGED, (0, 10), (0.3, 0.5, 0.05, 50.0, 1.0)),
        # 1 s of foreign work in the first 2 s, none later: interpolated at the window's edges.
        ([shot(0, 0, 0.0), shot(2, 3, 2.0), shot(4, 5, 4.0)], (1, 3), (0.5, 0.125, 0)),
        # A worker used 3 s, 1 s of it after the first snapshot, and was then waited for.
        ([shot(0, 0, 1.0, 2.0), shot(4, 4, (4.0, 3.0))], (0, 4), (0.5, 0, 0)),
        # A child that nobody waited for does not make own time negative.
        ([shot(0, 0, 0.0, 50.0), shot(4, 4, 4.0)], (0, 4), (0.5, 0, 0)),
        # A child ended while /proc was being read: gone at first, in its parent's sum later.
        ([shot(0, 0, 0.0, 90.0), shot(1, 2, 1.0), shot(2, 4, (2.0, 90.0))], (0, 2), (0.5, 0.5, 0)),
        # 100 switches in 2 s; the trial ends after the window, before the third snapshot.
        ([*COUNTED, shot(3, 0)], (1, 2.5), (1 / 3, 0, 0, 50.0, 2.0)),
        # What the system does not count stays blank.
        ([shot(0, 0, 0.0, steal_s=None), shot(1, 1, 1.0, steal_s=None)], (0, 1), (0.5, 0)),
        # Counters that disagree do not make more than the whole.
        ([shot(0, 0, 0.0), shot(1, 1, 9.0, steal_s=9)], (0, 1), (1, 0, 1)),
        ([shot(0, 0), shot(1, 9)], (0, 1), (0, 1, 0)),
        # Snapshots that do not cover the window show nothing.
        ([shot(1, 0), shot(2, 1)], (0.5, 2), ()),
        ([shot(1, 0), shot(2, 1)], (1, 2.5), ()),
        ([shot(1, 0), shot(2, 1)], (1.5, 1.5), ()),
        ([], (0, 1), ()),
    ],
)
def test_use_of_the_processor_in_a_window(taken, window_s, expected):
    """Expected: own, foreign and stolen shares, switches and faults per second; then blanks."""
    noise = cpu_noise(taken, start_s=window_s[0], end_s=window_s[1], num_cores=2)
    found = list(asdict(noise).values())
    assert found == pytest.approx([*expected, *[None] * (5 - len(expected))])


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="snapshots of threads need Linux /proc")
def test_a_program_outside_the_tree_counts_as_foreign_and_one_inside_as_own():
    """Loose bounds only: other programs may be busy here too."""
    spin = "import time\nend = time.monotonic() + 0.9\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as child:
        time.sleep(0.2)
        first = take_snapshot(child.pid)
        time.sleep(0.5)
        last = take_snapshot(child.pid)
    noise = cpu_noise([first, last], start_s=first.time_s, end_s=last.time_s, num_cores=1)
    assert noise.own_cpu_frac is not None and noise.own_cpu_frac > 0.1
    assert noise.involuntary_switches_per_s is not None
    # Faults and switches are the trial's alone, not those of the harness around it.
    assert {pid for pid, _ in last.faults} == {child.pid}
    assert {process[0] for process, _ in last.switches} == {child.pid}
    names = {key[0]: times.name for key, times in last.processes.items()}
    assert names[os.getpid()] == psutil.Process().name()[:15]
    pids = {pid for pid, _ in last.processes}
    assert {os.getpid(), child.pid} <= pids and 1 not in pids
    # The same counters, with the child left out of the tree, make it foreign.
    kept = [key for key in first.processes if key[0] != child.pid]
    alone = [
        replace(one, processes={key: one.processes[key] for key in kept}) for one in (first, last)
    ]
    outside = cpu_noise(alone, start_s=first.time_s, end_s=last.time_s, num_cores=1)
    assert outside.foreign_cpu_frac > noise.foreign_cpu_frac
    assert outside.foreign_cpu_frac > 0.1 / (psutil.cpu_count() or 1)


def test_a_machine_is_read_from_its_files(machine, tmp_path):
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name\t: Made Up 9000\nflags\t: fpu avx2 hypervisor\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
        "sys/devices/system/cpu/cpu1/topology/physical_package_id": "1\n",
        "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
        "sys/devices/system/cpu/smt/active": "1\n",
        "sys/devices/system/node/node0/cpulist": "0\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "etc/os-release": 'ID=x\nPRETTY_NAME="Made Up Linux 1"\n',
        "sys/module/nvidia/version": "580.65\n",
        ".dockerenv": "",
    }
    facts = machine_facts(root=machine(files), environ={})
    processor, system = facts["cpu"], facts["system"]
    assert processor["model"] == "Made Up 9000"
    assert (processor["governor"], processor["turbo"]) == ("performance,powersave", "off")
    assert (processor["sockets"], processor["numa_nodes"], processor["smt_active"]) == (2, 1, "1")
    assert processor["cgroup_cpus"] == 1.5
    assert facts["memory"]["transparent_huge_pages"] == "madvise"
    assert (system["name"], system["container"]) == ("Made Up Linux 1", "docker")
    assert (system["is_virtual"], system["drivers"]) == (True, {"nvidia": "580.65"})
    # A machine without /proc and /sys leaves blanks.
    facts = machine_facts(root=tmp_path / "bare", environ={})
    for name in ("sockets", "numa_nodes", "smt_active", "cgroup_cpus", "governor", "turbo"):
        assert facts["cpu"][name] is None
    assert facts["system"]["container"] is None
    assert facts["memory"]["transparent_huge_pages"] is None
