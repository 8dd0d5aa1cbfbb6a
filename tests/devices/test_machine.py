"""The machine as a made-up tree of /proc and /sys shows it."""

from pathlib import Path

import pytest

from bench.devices.host.machine import machine_facts


def test_a_machine_is_read_from_its_files(tmp_path: Path) -> None:
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
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    facts = machine_facts(root=tmp_path, environ={})
    cpu, system = facts["cpu"], facts["system"]
    assert cpu["model"] == "Made Up 9000"
    assert (cpu["governor"], cpu["turbo"]) == ("performance,powersave", "off")
    assert (cpu["sockets"], cpu["numa_nodes"], cpu["smt_active"]) == (2, 1, "1")
    assert cpu["cgroup_cpus"] == 1.5
    assert facts["memory"]["transparent_huge_pages"] == "madvise"
    assert (system["name"], system["container"]) == ("Made Up Linux 1", "docker")
    assert (system["is_virtual"], system["drivers"]) == (True, {"nvidia": "580.65"})


def test_a_machine_without_proc_and_sys_leaves_blanks(tmp_path: Path) -> None:
    facts = machine_facts(root=tmp_path, environ={})
    cpu, system = facts["cpu"], facts["system"]
    for name in ("sockets", "numa_nodes", "smt_active", "cgroup_cpus", "governor", "turbo"):
        assert cpu[name] is None
    assert system["container"] is None
    assert facts["memory"]["transparent_huge_pages"] is None


@pytest.mark.parametrize(
    ("content", "cpus"),
    [("max 100000", None), ("50000 100000", 0.5), ("", None), ("1 2 3", None)],
)
def test_only_a_real_quota_is_a_quota(tmp_path: Path, content: str, cpus: float | None) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text(content)
    assert machine_facts(root=tmp_path, environ={})["cpu"]["cgroup_cpus"] == cpus
