"""What the kernel gives this process: kinds of cores, and memory for batches.

Each check reads a file or two and gives a finding or nothing, as `host_findings` does.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.core.units import format_bytes, format_ranges
from bench.devices.doctor.host_findings import Finding, note, warning
from bench.devices.host import cpu
from bench.devices.host.cgroup import read_text

BATCH_BYTES = 2 * 128**3 * (4 * 4 + 1)
"""Two patches of imaging-train large: four modalities, as of the Decathlon's brains, and labels."""
_MOST_WORKERS = 8
_KEPT_BATCHES = 3
"""Of each worker: two fetched ahead (torch's DataLoader's own number) and one in use."""


def core_findings(*, root: Path) -> Iterator[Finding]:
    """Report a processor with cores of two kinds, and a process that may use the slow ones only."""
    allowed = cpu.allowed_cpu_ids()
    online = cpu.parse_cpu_list(read_text(root / "sys/devices/system/cpu/online") or "")
    kinds = cpu.core_kinds(online or allowed, root=root)
    if not kinds.slow:
        return
    fast, slow = format_ranges(kinds.fast), format_ranges(kinds.slow)
    if set(allowed) <= set(kinds.slow):
        yield warning(
            what=f"only slow cores ({format_ranges(allowed)}) are allowed; {fast} are fast",
            why="results compare to no others of this processor",
            fix=f"taskset -c {fast} bench ..., or docker run --cpuset-cpus={fast}",
        )
        return
    pinned = format_ranges(cpu.usable_cpu_ids(root=root))
    yield note(
        what=f"cores are of two kinds: {fast} fast, {slow} slow; trials are pinned to {pinned}",
        why="a thread on a slow core holds up all others at the end of each parallel part",
        fix=f"nothing; to use slow cores too: --threads {len(online or allowed)}",
    )


def shared_memory_findings(*, root: Path) -> Iterator[Finding]:
    """Report a /dev/shm that a loader's workers would fill; Docker gives it 64 MiB.

    Source: https://docs.docker.com/reference/cli/docker/container/run/ (--shm-size)
    """
    folder = root / "dev/shm"
    if not folder.is_dir():
        return
    workers = max(1, min(_MOST_WORKERS, cpu.usable_cores(root=root) // 4))
    needed_bytes = workers * _KEPT_BATCHES * BATCH_BYTES
    usage = shutil.disk_usage(folder)
    if usage.free >= needed_bytes:
        return
    size_gib = -(-needed_bytes // 2**30)
    yield warning(
        what=f"/dev/shm has {format_bytes(usage.free)} of {format_bytes(usage.total)} free; "
        f"{workers} loader workers may hold {format_bytes(needed_bytes)} of batches",
        why="a worker that finds it full dies of a bus error, and the trial with it",
        fix=f"docker run --shm-size={size_gib}g ..., sudo mount -o remount,size={size_gib}g "
        "/dev/shm, or --workers 0",
    )
