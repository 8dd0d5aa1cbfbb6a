"""Settings of the processor, kernel, container and shell, and other programs, that spoil trials.

Each check reads a file or two and gives a finding or nothing; a file that is missing means that the
question does not arise here. Who else uses the processor right now takes a look of a second.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil

from bench.core.units import format_bytes
from bench.devices.host import cpu
from bench.devices.host.cgroup import cpu_quota, read_int, read_text
from bench.devices.host.cpu import allowed_cpu_ids, free_memory_bytes
from bench.devices.host.cpu_noise import (
    FOREIGN_CPU_INVALID_FRAC,
    FOREIGN_CPU_WARN_FRAC,
    STEAL_WARN_FRAC,
    CpuNoise,
    CpuSnapshot,
    noise_between,
)
from bench.devices.host.foreign_load import look

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""error: figures would be invalid; warning: noisier or slower; note: worth knowing."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One observation. The harness changes nothing: `fix` is a command for the reader."""

    severity: Severity
    what: str
    why: str
    """How it spoils a measurement."""
    fix: str


error = partial(Finding, severity="error")
warning = partial(Finding, severity="warning")
note = partial(Finding, severity="note")

_LOW_MEMORY_BYTES = 2 * 2**30
_LOW_DISK_BYTES = 10**9
_FULL_DISK_BYTES = 10**8
_SWAP_BYTES = 64 * 2**20
_BUSY_CORES = 0.05
_NUM_NAMED = 3
_LOAD_PER_CPU = 0.5
_WATCH_S = 1.0

_CPU = "sys/devices/system/cpu"


def processor_findings(*, root: Path) -> Iterator[Finding]:
    """Report governors other than performance, turbo clocks, huge pages and SMT."""
    governors = [name for name in cpu.governors(root) if name != "performance"]
    if governors:
        yield warning(
            what=f"the frequency governor is {', '.join(governors)}",
            why="clocks follow the load with a delay, so short and bursty steps look slower",
            fix="sudo cpupower frequency-set -g performance",
        )
    if (switch := cpu.turbo(root)) and switch[0]:
        yield note(
            what="turbo clocks are on",
            why="the clock depends on heat and on how many cores are busy, so days differ",
            fix=switch[1],
        )
    if cpu.huge_pages(root) == "always":
        yield note(
            what="transparent huge pages are set to always",
            why="the kernel merges pages in the background, which shows as rare slow steps",
            fix="echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )
    if read_int(root / _CPU / "smt/active") == 1:
        yield note(
            what="SMT is on: two logical processors share a core",
            why="another program on the sibling takes up to half a core, not seen as load there",
            fix=f"echo off | sudo tee /{_CPU}/smt/control",
        )


def share_findings(*, root: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Report a small share of processor or memory, swapping, and a container that hides others."""
    quota, num_allowed = cpu_quota(root=root), len(allowed_cpu_ids())
    if quota is not None and quota < num_allowed:
        cpu_ids = f"0-{max(1, int(quota)) - 1}"
        yield warning(
            what=f"a quota allows {quota:g} of {num_allowed} processors",
            why="when it is used up the kernel stops every thread until the next period begins",
            fix=f"docker run --cpuset-cpus={cpu_ids} ... (whole processors instead of a quota)",
        )
    swapped_bytes, free_bytes = psutil.swap_memory().used, free_memory_bytes(root=root)
    if swapped_bytes >= _SWAP_BYTES:
        yield warning(
            what=f"{format_bytes(swapped_bytes)} of swap are in use",
            why="a page that has to come back from disk stalls a step for milliseconds",
            fix="sudo swapoff -a && sudo swapon -a",
        )
    if free_bytes < _LOW_MEMORY_BYTES:
        yield warning(
            what=f"only {format_bytes(free_bytes)} of memory are free",
            why="trials may swap or be killed; file caches of the data set are pushed out",
            fix="ps aux --sort=-rss | head",
        )
    words = ("docker", "kubepods", "containerd", "lxc")
    is_container = cpu.container(root, environ=environ) is not None or any(
        word in (read_text(root / "proc/1/cgroup") or "") for word in words
    )
    # Process 2 of a host is kthreadd.
    if is_container and read_text(root / "proc/2/comm") != "kthreadd":
        yield note(
            what="this container does not see the host's processes",
            why="foreign load shows only as a sum; who causes it cannot be named",
            fix="docker run --pid=host ...",
        )


def disk_findings(results_dir: Path) -> Iterator[Finding]:
    """Report a results directory that cannot take a run's files."""
    place = results_dir.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    free_bytes = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        yield error(
            what=f"{place} cannot be written",
            why="rows are written as trials end; the first one would fail",
            fix=f"ls -ld {place}, or choose another directory with --out",
        )
    elif free_bytes < _LOW_DISK_BYTES:
        yield Finding(
            severity="error" if free_bytes < _FULL_DISK_BYTES else "warning",
            what=f"only {format_bytes(free_bytes)} are free for results in {place}",
            why="rows and samples are lost when the disk is full",
            fix=f"df -h {place}",
        )


def torchvision_mismatch() -> str | None:
    """Say which torch the installed torchvision was built for, where that is another one.

    Its operators do not load then, and transformers, which imports it, fails with
    "operator torchvision::nms does not exist" (https://github.com/pytorch/vision/issues/9174).
    """
    try:
        vision, version = metadata.distribution("torchvision"), metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
    pins = (re.match(r"torch\s*\(?==\s*([^\s;)]+)", line) for line in vision.requires or ())
    wanted = next((pin[1] for pin in pins if pin), None)
    public, _, build = version.partition("+")
    if wanted is not None and wanted.partition("+")[0] != public:
        return f"torchvision {vision.version} was built for torch {wanted}, this is torch {version}"
    if build == "cpu" and not vision.version.endswith("+cpu"):
        return f"torchvision {vision.version} was built for CUDA, this is torch {version}"
    return None


TORCHVISION_FIX = "pip uninstall torchvision, or install the one of this torch"
_THREADS_WHY = "thread counts belong to the recorded settings of a trial: use --threads"
_SERIAL_WHY = "every kernel waits for the one before: nothing overlaps any more"
_AUTOLOAD_WHY = "torch does not load vendor backends, so their devices are missing"
_CACHING_WHY = "every tensor is a fresh driver allocation, which takes longer than most kernels"

_VARIABLES: tuple[tuple[str, tuple[str, ...], Severity, str], ...] = (
    ("TORCH_DEVICE_BACKEND_AUTOLOAD", ("0",), "warning", _AUTOLOAD_WHY),
    ("OMP_NUM_THREADS", (), "note", _THREADS_WHY),
    ("MKL_NUM_THREADS", (), "note", _THREADS_WHY),
    ("CUDA_LAUNCH_BLOCKING", ("1",), "error", _SERIAL_WHY),
    ("HIP_LAUNCH_BLOCKING", ("1",), "error", _SERIAL_WHY),
    ("PYTORCH_NO_CUDA_MEMORY_CACHING", ("1",), "error", _CACHING_WHY),
)
"""Variable, values that matter (none: any), severity and reason."""


def software_findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Report a torchvision that cannot load, and variables that change what is measured."""
    mismatch = torchvision_mismatch()
    if mismatch is not None:
        yield error(
            what=mismatch,
            why="transformers imports it and fails, and with it each trial of one of its nets",
            fix=TORCHVISION_FIX,
        )
    for name, values, severity, why in _VARIABLES:
        if environ.get(name) and (not values or environ[name] in values):
            what, fix = f"{name}={environ[name]} is set", f"unset {name}"
            yield Finding(severity=severity, what=what, why=why, fix=fix)


def busiest(before: CpuSnapshot, after: CpuSnapshot) -> list[tuple[float, int, str]]:
    """Cores used, process id and name of the busiest foreign processes, busiest first."""
    elapsed_s = after.time_s - before.time_s
    used = [
        ((now.own_s - before.everything[key].own_s) / elapsed_s, key[0], now.name)
        for key, now in after.everything.items()
        if key in before.everything and key not in after.processes
    ]
    return sorted((one for one in used if one[0] >= _BUSY_CORES), reverse=True)[:_NUM_NAMED]


def noise_findings(noise: CpuNoise, *, busy: list[tuple[float, int, str]]) -> Iterator[Finding]:
    """Report processor time that others used, named as far as they can be seen, and stolen time."""
    share = noise.foreign_cpu_frac
    if busy or (share or 0.0) > FOREIGN_CPU_WARN_FRAC:
        listed = ", ".join(f"{name} (pid {pid}, {cores:.1f} cores)" for cores, pid, name in busy)
        is_light = share is not None and share <= FOREIGN_CPU_WARN_FRAC
        is_heavy = share is not None and share > FOREIGN_CPU_INVALID_FRAC
        found = error if is_heavy else note if is_light else warning
        total = "" if share is None else f"other programs use {share:.0%} of the processor: "
        pids = ",".join(str(pid) for _, pid, _ in busy)
        yield found(
            what=total + (listed or "not visible from here"),
            why=f"a trial with over {FOREIGN_CPU_WARN_FRAC:.0%} foreign use is marked, "
            f"one with over {FOREIGN_CPU_INVALID_FRAC:.0%} is invalid",
            fix=f"stop them or wait: top -p {pids}" if pids else "look on the host: top",
        )
    if (noise.steal_frac or 0.0) > STEAL_WARN_FRAC:
        yield warning(
            what=f"the hypervisor took {noise.steal_frac:.1%} of the processor's time",
            why="other virtual machines share these cores",
            fix="use an instance with dedicated cores",
        )


def load_findings() -> Iterator[Finding]:
    """Watch the machine for a second and report what was busy; then the one-minute load."""
    before = look()
    time.sleep(_WATCH_S)
    after = look()
    yield from noise_findings(noise_between(before, after), busy=busiest(before, after))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    num_cpus = psutil.cpu_count() or 1
    if load > _LOAD_PER_CPU * num_cpus:
        yield warning(
            what=f"the load average is {load:.1f} on {num_cpus} processors",
            why="trials would share the processor with what caused it",
            fix="wait for it to fall: uptime",
        )
