"""What the operating system shows about the machine, for the environment record.

Facts only, each by itself: what a system does not tell is None. Linux shows most, through /proc and
/sys; `root` lets a test put a made-up tree there. What a trial may use of all this (threads, pinned
cores) is decided in `cpu`; GPUs are seen by the trial's process.
"""

import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from bench.core.units import format_ranges
from bench.devices.host.cgroup import ROOT, cpu_quota, read_text
from bench.devices.host.cpu import allowed_cpu_ids, cpu_model, cpuinfo, numa_nodes

Facts = dict[str, object]


def machine_facts(*, environ: Mapping[str, str], root: Path = ROOT) -> dict[str, Facts]:
    """The parts cpu, memory, system and now; `now` is different a minute later."""
    return {
        "cpu": _processor(root),
        "memory": {
            "total_bytes": psutil.virtual_memory().total,
            "swap_bytes": psutil.swap_memory().total,
            "transparent_huge_pages": huge_pages(root),
        },
        "system": _system(root, environ=environ),
        "now": {
            "uptime_s": round(time.time() - psutil.boot_time()),
            "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "memory_available_bytes": psutil.virtual_memory().available,
            "swap_used_bytes": psutil.swap_memory().used,
        },
    }


def governors(root: Path) -> tuple[str, ...]:
    """Frequency governors in use, in alphabetical order."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return tuple(sorted({read_text(file) or "" for file in files} - {""}))


def huge_pages(root: Path) -> str | None:
    """Chosen setting of transparent huge pages."""
    text = read_text(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    chosen = re.search(r"\[(\w+)\]", text)
    return chosen[1] if chosen else None


def container(root: Path, *, environ: Mapping[str, str]) -> str | None:
    """Kind of container this runs in."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    for marker, name in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (root / marker).exists():
            return name
    return read_text(root / "run/systemd/container") or None


def _processor(root: Path) -> Facts:
    """Model, counts, and the settings that change its speed."""
    fields = cpuinfo(root)
    settings = root / "sys/devices/system/cpu"
    sockets = {read_text(file) for file in settings.glob("cpu[0-9]*/topology/physical_package_id")}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    # Vector instructions that torch's kernels are chosen by.
    simd = sorted(flag for flag in flags if re.match(r"avx|amx|sve|asimd$|fma$", flag))
    return {
        "model": cpu_model(root=root) or platform.machine() or None,
        "architecture": platform.machine() or None,
        "cores": psutil.cpu_count(logical=False),
        "logical_cpus": psutil.cpu_count(),
        "sockets": len(sockets - {None}) or None,
        "numa_nodes": len(numa_nodes(root=root)) or None,
        "smt_active": read_text(settings / "smt/active"),
        "affinity": format_ranges(allowed_cpu_ids()) if hasattr(os, "sched_getaffinity") else None,
        "cgroup_cpus": cpu_quota(root=root),
        "governor": ",".join(governors(root)) or None,
        "turbo": _turbo(settings),
        "cpu_flags_simd": " ".join(simd) or None,
    }


def _turbo(settings: Path) -> str | None:
    """'on' or 'off', by Intel's switch or the generic one."""
    if no_turbo := read_text(settings / "intel_pstate/no_turbo"):
        return "off" if no_turbo == "1" else "on"
    boost = read_text(settings / "cpufreq/boost")
    return None if boost is None else "on" if boost == "1" else "off"


def _system(root: Path, *, environ: Mapping[str, str]) -> Facts:
    """Operating system, kernel, drivers, and what it runs inside of."""
    modules = {name: root / f"sys/module/{name}/version" for name in ("nvidia", "amdgpu")}
    return {
        "name": _distribution(root),
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "container": container(root, environ=environ),
        "is_virtual": "hypervisor" in cpuinfo(root).get("flags", "").split() or None,
        "vendor": read_text(root / "sys/class/dmi/id/sys_vendor"),
        "product": read_text(root / "sys/class/dmi/id/product_name"),
        "drivers": {name: text for name, file in modules.items() if (text := read_text(file))},
    }


def _distribution(root: Path) -> str:
    for line in (read_text(root / "etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip("\"'")
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return f"{platform.system()} {platform.version()}"
