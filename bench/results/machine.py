"""What the operating system tells about the machine, for the environment record.

Facts only, each by itself: what a system does not tell is None. Linux tells most, through /proc and
/sys; `root` lets a test put a made-up tree there. What a trial may use of all this (threads, pinned
cores) is decided in `bench.devices`; GPUs are seen by the trial's process.
"""

import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

Facts = dict[str, object]
ROOT = Path("/")
_MODEL_FIELDS = ("model name", "cpu model", "Processor", "Hardware")


def processor_facts(*, root: Path = ROOT) -> Facts:
    """Model, counts, and the settings that change its speed."""
    cpuinfo = _cpuinfo(root)
    settings = root / "sys/devices/system/cpu"
    nodes = sorted((root / "sys/devices/system/node").glob("node[0-9]*"))
    governors = {_text(path) for path in settings.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return {
        "model": next((cpuinfo[name] for name in _MODEL_FIELDS if cpuinfo.get(name)), None)
        or platform.processor()
        or platform.machine()
        or None,
        "architecture": platform.machine() or None,
        "cores": psutil.cpu_count(logical=False),
        "logical_cpus": psutil.cpu_count(),
        "sockets": _num_sockets(settings),
        "numa_nodes": len(nodes) or None,
        "smt_active": _text(settings / "smt/active"),
        "affinity": _affinity(),
        "cgroup_cpus": _cgroup_cpus(root),
        "governor": ",".join(sorted(name for name in governors if name)) or None,
        "turbo": _turbo(settings),
        "cpu_flags_simd": _simd(cpuinfo),
    }


def memory_facts(*, root: Path = ROOT) -> Facts:
    """Size, and how pages are made."""
    huge_pages = _text(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    chosen = re.search(r"\[(\w+)\]", huge_pages)
    return {
        "total_bytes": psutil.virtual_memory().total,
        "swap_bytes": psutil.swap_memory().total,
        "transparent_huge_pages": chosen[1] if chosen else None,
    }


def system_facts(*, root: Path = ROOT, environ: Mapping[str, str]) -> Facts:
    """Operating system, kernel, drivers, and what it runs inside of."""
    drivers = {name: _text(root / f"sys/module/{name}/version") for name in ("nvidia", "amdgpu")}
    return {
        "name": _distribution(root),
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "container": _container(root, environ=environ),
        "is_virtual": "hypervisor" in _cpuinfo(root).get("flags", "").split() or None,
        "vendor": _text(root / "sys/class/dmi/id/sys_vendor"),
        "product": _text(root / "sys/class/dmi/id/product_name"),
        "drivers": {name: version for name, version in drivers.items() if version},
    }


def momentary_facts() -> Facts:
    """What is different a minute later; never part of an environment's identity."""
    return {
        "uptime_s": round(time.time() - psutil.boot_time()),
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "memory_available_bytes": psutil.virtual_memory().available,
        "swap_used_bytes": psutil.swap_memory().used,
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _cpuinfo(root: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _num_sockets(settings: Path) -> int | None:
    packages = {_text(path) for path in settings.glob("cpu[0-9]*/topology/physical_package_id")} - {
        None
    }
    return len(packages) or None


def _affinity() -> str | None:
    """Logical processors this process may use, as '0-3,8'."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    runs: list[list[int]] = []
    for cpu in sorted(os.sched_getaffinity(0)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def _cgroup_cpus(root: Path) -> float | None:
    """Processors' worth of time that the control group seen at the mount's root allows."""
    # https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    parts = (_text(root / "sys/fs/cgroup/cpu.max") or "").split()
    if len(parts) != 2:
        old = root / "sys/fs/cgroup/cpu"
        parts = [_text(old / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    quota, period = parts
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _turbo(settings: Path) -> str | None:
    """'on' or 'off', by Intel's switch or the generic one."""
    if no_turbo := _text(settings / "intel_pstate/no_turbo"):
        return "off" if no_turbo == "1" else "on"
    boost = _text(settings / "cpufreq/boost")
    return None if boost is None else "on" if boost == "1" else "off"


def _simd(cpuinfo: Mapping[str, str]) -> str | None:
    """Vector instructions that torch's kernels are chosen by."""
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    known = [flag for flag in flags if re.match(r"avx|amx|sve|asimd$|fma$", flag)]
    return " ".join(sorted(known)) or None


def _distribution(root: Path) -> str:
    for line in (_text(root / "etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip("\"'")
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return f"{platform.system()} {platform.version()}"


def _container(root: Path, *, environ: Mapping[str, str]) -> str | None:
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    return _text(root / "run/systemd/container")
