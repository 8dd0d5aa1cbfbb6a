"""The machine, and the part of its processor and memory that this process may use.

Affinity, SMT siblings, memory nodes and control groups are honoured, so that a trial in a container
starts as many threads as it will really be given. Benchmarks run one thread per physical core: a
second one on the same core makes step times depend on the scheduler's luck. Of a hybrid processor
the fast cores are used: a thread on a slow one holds up all others in each parallel part.
Without Linux's /sys every logical processor counts as a core of one node and one kind. Nothing is
set here: the caller pins.
"""

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psutil

from bench.core.units import format_ranges
from bench.devices.host.cgroup import (
    ROOT,
    cpu_quota,
    memory_left_bytes,
    memory_limit_bytes,
    read_int,
    read_text,
)

FAST_FRAC = 0.8
"""Cores from this share of the fastest one's speed on count as fast ones.

Favoured cores of one kind differ by a few percent. Of small kinds the clock alone is less: 3.9 of
5.2 GHz (Core i9-12900K), 3.5 of 4.9 GHz (Zen 4c in the Ryzen 5 7545U), by their data sheets.
"""
_SPEEDS = ("cpu_capacity", "cpufreq/cpuinfo_max_freq", "acpi_cppc/nominal_perf")
"""What shows a core's speed next to others', in order of trust; the first that differs counts.

Not CPPC's highest_perf: on AMD it ranks cores of one kind. x86 kernels write one capacity for all
while SMT is on. Sources: https://docs.kernel.org/admin-guide/pm/amd-pstate.html,
https://docs.kernel.org/scheduler/sched-capacity.html
"""
_PERFORMANCE_CORES = "sys/devices/cpu_core/cpus"
"""Intel's list of its fast cores, which clocks alone do not always show; there on hybrids only
(https://github.com/torvalds/linux/blob/master/tools/perf/Documentation/intel-hybrid.txt)."""


def allowed_cpu_ids() -> tuple[int, ...]:
    """Logical processors that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(psutil.cpu_count() or 1))


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """`'0-2,8'` is (0, 1, 2, 8)."""
    ids: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            ids.extend(range(int(first), int(last or first) + 1))
    return tuple(sorted(set(ids)))


def numa_nodes(*, root: Path) -> tuple[tuple[int, ...], ...]:
    """Logical processors of each memory node that has any, in order of the nodes' numbers."""
    folders = (root / "sys/devices/system/node").glob("node[0-9]*")
    ordered = sorted(folders, key=lambda folder: int(folder.name.removeprefix("node")))
    lists = (parse_cpu_list(read_text(folder / "cpulist") or "") for folder in ordered)
    return tuple(cpu_ids for cpu_ids in lists if cpu_ids)


@dataclass(frozen=True, kw_only=True)
class CoreKinds:
    """Logical processors by the kind of their core."""

    fast: tuple[int, ...]
    slow: tuple[int, ...] = ()
    """Empty where all are alike."""


def core_kinds(cpu_ids: Iterable[int], *, root: Path = ROOT) -> CoreKinds:
    """Part the fast ones of these logical processors from the slow ones."""
    ids = tuple(sorted(cpu_ids))
    performance = parse_cpu_list(read_text(root / _PERFORMANCE_CORES) or "")
    listed = {cpu_id for cpu_id in ids if cpu_id in performance}
    candidates = chain([listed], (_fastest(ids, name=name, root=root) for name in _SPEEDS))
    found = next((fast for fast in candidates if 0 < len(fast) < len(ids)), set(ids))
    return CoreKinds(
        fast=tuple(cpu_id for cpu_id in ids if cpu_id in found),
        slow=tuple(cpu_id for cpu_id in ids if cpu_id not in found),
    )


def _fastest(cpu_ids: tuple[int, ...], *, name: str, root: Path) -> set[int]:
    """Those near the highest figure in this file; none where one of them has no figure."""
    folder = root / "sys/devices/system/cpu"
    speeds = {cpu_id: read_int(folder / f"cpu{cpu_id}" / name) or 0 for cpu_id in cpu_ids}
    if min(speeds.values(), default=0) <= 0:
        return set()
    least = FAST_FRAC * max(speeds.values())
    return {cpu_id for cpu_id, speed in speeds.items() if speed >= least}


def _usable_kinds(root: Path) -> CoreKinds:
    """The first logical processor that this process may use of each core."""
    firsts: dict[tuple[int, ...], int] = {}
    for cpu_id in allowed_cpu_ids():
        topology = root / f"sys/devices/system/cpu/cpu{cpu_id}/topology"
        names = ("core_cpus_list", "thread_siblings_list")  # the newer name of a list, the older
        texts = (read_text(topology / name) for name in names)
        firsts.setdefault(parse_cpu_list(next(filter(None, texts), str(cpu_id))), cpu_id)
    ids, num_physical = list(firsts.values()), psutil.cpu_count(logical=False)
    if platform.system() != "Linux" and num_physical:
        # Nothing reports which ids are siblings: let the first of each run of ids stand for a core.
        ids = ids[:: max(1, len(ids) // num_physical)][:num_physical]
    return core_kinds(ids, root=root)


def _within_quota(num_cores: int, *, root: Path) -> int:
    quota = cpu_quota(root=root)
    return max(1, num_cores if quota is None else min(num_cores, int(quota)))


def usable_cores(*, root: Path = ROOT) -> int:
    """Physical cores this process should use: those allowed, without SMT siblings and slow kinds.

    A quota is rounded down.
    """
    return _within_quota(len(_usable_kinds(root).fast), root=root)


def usable_cpu_ids(*, num_cores: int | None = None, root: Path = ROOT) -> tuple[int, ...]:
    """One logical id for each usable core (or for `num_cores`), in one memory node if it can.

    Of several sufficient nodes the one with the most of these cores is taken, then the first.
    Where none suffices, whole nodes are used in that same order. Slow cores come last.
    """
    kinds = _usable_kinds(root)
    by_node = [[one for one in kinds.fast if one in node] for node in numa_nodes(root=root)]
    ordered = list(chain(*sorted(by_node, key=len, reverse=True)))
    ordered += [one for one in (*kinds.fast, *kinds.slow) if one not in ordered]
    wanted = len(kinds.fast) if num_cores is None else max(1, num_cores)
    return tuple(sorted(ordered[: _within_quota(min(wanted, len(ordered)), root=root)]))


def usable_memory_bytes(*, root: Path = ROOT) -> int:
    """Memory this process may fill: the machine's, or the control group's limit where smaller."""
    total_bytes, limit_bytes = psutil.virtual_memory().total, memory_limit_bytes(root=root)
    return total_bytes if limit_bytes is None else min(total_bytes, limit_bytes)


def free_memory_bytes(*, root: Path = ROOT) -> int:
    """Memory that can be had now without swapping, control group honoured."""
    free_bytes, left_bytes = psutil.virtual_memory().available, memory_left_bytes(root=root)
    return free_bytes if left_bytes is None else min(free_bytes, left_bytes)


def cpu_model(*, root: Path = ROOT) -> str | None:
    """Marketing name of the processor, or None where nothing shows it."""
    fields = cpuinfo(root)
    for name in ("model name", "cpu model", "Processor", "Model", "Hardware"):
        if fields.get(name):
            return fields[name]
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip() or None
    return platform.processor() or None


def cpuinfo(root: Path) -> dict[str, str]:
    """First value of each field in /proc/cpuinfo; empty where there is none."""
    lines = (read_text(root / "proc/cpuinfo") or "").splitlines()
    parts = (line.partition(":") for line in reversed(lines))
    return {name.strip(): value.strip() for name, _, value in parts}


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


def turbo(root: Path) -> tuple[bool, str] | None:
    """Whether turbo clocks are on, and the command that switches them off."""
    for name, on, off in (("intel_pstate/no_turbo", 0, 1), ("cpufreq/boost", 1, 0)):
        file = f"sys/devices/system/cpu/{name}"
        if (value := read_int(root / file)) is not None:
            return value == on, f"echo {off} | sudo tee /{file}"
    return None


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
    fields = cpuinfo(root)
    settings = root / "sys/devices/system/cpu"
    sockets = {read_text(file) for file in settings.glob("cpu[0-9]*/topology/physical_package_id")}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    # Vector instructions that torch's kernels are chosen by.
    simd = sorted(flag for flag in flags if re.match(r"avx|amx|sve|asimd$|fma$", flag))
    kinds, switch = core_kinds(allowed_cpu_ids(), root=root), turbo(root)
    hybrid: Facts = {
        "fast_cpus": format_ranges(kinds.fast),
        "slow_cpus": format_ranges(kinds.slow),
        "pinned_cpus": format_ranges(usable_cpu_ids(root=root)),
    }
    return {
        **(hybrid if kinds.slow else {}),
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
        "turbo": switch and ("on" if switch[0] else "off"),
        "cpu_flags_simd": " ".join(simd) or None,
    }


def _system(root: Path, *, environ: Mapping[str, str]) -> Facts:
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
