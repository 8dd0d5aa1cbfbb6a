"""Settings of the processor, kernel, container and shell that spoil measurements.

Each check reads a file or two and gives a finding or nothing; a file that is missing means that the
question does not arise here. Who is busy right now is in `load_findings`, the devices are in
`gpu_findings`.
"""

import os
import re
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import psutil

from bench.core.units import format_bytes
from bench.devices.cgroup import cpu_quota, read_int, read_text
from bench.devices.cpu import allowed_cpu_ids, free_memory_bytes
from bench.devices.finding import Finding, Severity

_LOW_MEMORY_BYTES = 2 * 2**30
_LOW_DISK_BYTES = 10**9
_FULL_DISK_BYTES = 10**8
_SWAP_BYTES = 64 * 2**20

_CPU = "sys/devices/system/cpu"


def governor_finding(*, root: Path) -> Finding | None:
    """Report governors other than performance."""
    files = sorted((root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_governor"))
    governors = sorted({read_text(file) or "" for file in files} - {"performance", ""})
    if not governors:
        return None
    return Finding(
        severity="warning",
        what=f"the frequency governor is {', '.join(governors)}",
        why="clocks follow the load with a delay, so short and bursty steps look slower",
        fix="sudo cpupower frequency-set -g performance",
    )


def turbo_finding(*, root: Path) -> Finding | None:
    """Report turbo clocks that are on."""
    switches = {f"{_CPU}/intel_pstate/no_turbo": (0, 1), f"{_CPU}/cpufreq/boost": (1, 0)}
    for name, (is_on, off) in switches.items():
        if read_int(root / name) == is_on:
            return Finding(
                severity="note",
                what="turbo clocks are on",
                why="the clock depends on heat and on how many cores are busy, so days differ",
                fix=f"echo {off} | sudo tee /{name}",
            )
    return None


def huge_pages_finding(*, root: Path) -> Finding | None:
    """Report transparent huge pages in use for everything."""
    name = "sys/kernel/mm/transparent_hugepage/enabled"
    if "[always]" not in (read_text(root / name) or ""):
        return None
    return Finding(
        severity="note",
        what="transparent huge pages are set to always",
        why="the kernel merges pages in the background, which shows as rare slow steps",
        fix=f"echo madvise | sudo tee /{name}",
    )


def smt_finding(*, root: Path) -> Finding | None:
    """Report simultaneous multithreading."""
    if read_int(root / _CPU / "smt/active") != 1:
        return None
    return Finding(
        severity="note",
        what="SMT is on: two logical processors share a core",
        why="another program on the sibling takes up to half a core without showing as load there",
        fix=f"echo off | sudo tee /{_CPU}/smt/control",
    )


def quota_finding(*, root: Path) -> Finding | None:
    """Report a control group's quota below what affinity allows."""
    quota = cpu_quota(root=root)
    num_allowed = len(allowed_cpu_ids())
    if quota is None or quota >= num_allowed:
        return None
    num_whole = max(1, int(quota))
    return Finding(
        severity="warning",
        what=f"a quota allows {quota:g} of {num_allowed} processors",
        why="when it is used up the kernel stops every thread until the next period begins",
        fix=f"docker run --cpuset-cpus=0-{num_whole - 1} ... (whole processors instead of a quota)",
    )


def swap_finding() -> Finding | None:
    """Report memory that was swapped out."""
    used_bytes = psutil.swap_memory().used
    if used_bytes < _SWAP_BYTES:
        return None
    return Finding(
        severity="warning",
        what=f"{format_bytes(used_bytes)} of swap are in use",
        why="a page that has to come back from disk stalls a step for milliseconds",
        fix="sudo swapoff -a && sudo swapon -a",
    )


def memory_finding(*, root: Path) -> Finding | None:
    """Report little free memory."""
    free_bytes = free_memory_bytes(root=root)
    if free_bytes >= _LOW_MEMORY_BYTES:
        return None
    return Finding(
        severity="warning",
        what=f"only {format_bytes(free_bytes)} of memory are free",
        why="trials may swap or be killed; file caches of the data set are pushed out",
        fix="ps aux --sort=-rss | head",
    )


def disk_finding(results_dir: Path) -> Finding | None:
    """Report a results directory that cannot take a run's files."""
    place = results_dir.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK):
        return Finding(
            severity="error",
            what=f"{place} cannot be written",
            why="rows are written as trials end; the first one would fail",
            fix=f"ls -ld {place}, or choose another directory with --out",
        )
    free_bytes = shutil.disk_usage(place).free
    if free_bytes >= _LOW_DISK_BYTES:
        return None
    return Finding(
        severity="error" if free_bytes < _FULL_DISK_BYTES else "warning",
        what=f"only {format_bytes(free_bytes)} are free for results in {place}",
        why="rows and samples are lost when the disk is full",
        fix=f"df -h {place}",
    )


def container_finding(*, root: Path) -> Finding | None:
    """Report a container that hides the host's processes. Process 2 of a host is kthreadd."""
    markers = (root / ".dockerenv", root / "run/.containerenv")
    groups = read_text(root / "proc/1/cgroup") or ""
    is_container = any(marker.exists() for marker in markers) or any(
        word in groups for word in ("docker", "kubepods", "containerd", "lxc")
    )
    if not is_container or read_text(root / "proc/2/comm") == "kthreadd":
        return None
    return Finding(
        severity="note",
        what="this container does not see the host's processes",
        why="foreign load shows only as a sum; who causes it cannot be named",
        fix="docker run --pid=host ...",
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


def torchvision_finding() -> Finding | None:
    """Report a torchvision that cannot load."""
    mismatch = torchvision_mismatch()
    if mismatch is None:
        return None
    return Finding(
        severity="error",
        what=mismatch,
        why="transformers imports it and fails, and with it each trial of the language model",
        fix=TORCHVISION_FIX,
    )


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


def variable_findings(environ: Mapping[str, str]) -> list[Finding]:
    """Report variables of the shell that change what is measured."""
    return [
        Finding(
            severity=severity,
            what=f"{name}={environ[name]} is set",
            why=why,
            fix=f"unset {name}",
        )
        for name, values, severity, why in _VARIABLES
        if environ.get(name) and (not values or environ[name] in values)
    ]
