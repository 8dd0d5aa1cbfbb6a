"""Control-group limits of this process: processor quota and memory.

A container on a 64-core host may be allowed two cores; starting 64 threads there measures the
kernel's throttling and not the program. Limits of every ancestor group count, and versions 1 and 2
and hybrids of both are read. CPU sets are left out: the kernel already folds them into the
affinity mask.
"""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def read_text(path: Path) -> str | None:
    """Stripped text of a small kernel file; None where it is missing, empty or not to be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """Integer in a small kernel file; None for a missing file, 'max' or anything else."""
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _memberships(root: Path) -> dict[str, str]:
    """Path of this process's group by controller; the key '' is version 2."""
    paths: dict[str, str] = {}
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            paths[controller] = path.lstrip("/")
    return paths


def _directories(controller: str, *, root: Path) -> Iterator[Path]:
    """Group directories of this process, innermost first, in every hierarchy that may limit it.

    Inside a container the path may name a group of the host that is not mounted here; then only
    its ancestors that exist, at least the mount itself, are looked at.
    """
    paths = _memberships(root)
    mount = root / "sys/fs/cgroup"
    folders = {"": "", "unified": "", controller: controller}
    if controller == "cpu":
        folders["cpu,cpuacct"] = "cpu"
    for folder, key in folders.items():
        base = mount / folder
        directory = base / paths.get(key, "")
        while directory.is_relative_to(base):
            if directory.is_dir():
                yield directory
            directory = directory.parent


def _quota_of(directory: Path) -> float | None:
    text = read_text(directory / "cpu.max")
    if text is not None:
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            return int(quota) / int(period)
        return None
    quota_us = read_int(directory / "cpu.cfs_quota_us")
    period_us = read_int(directory / "cpu.cfs_period_us")
    if quota_us is None or period_us is None or quota_us <= 0 or period_us <= 0:
        return None
    return quota_us / period_us


def cpu_quota(*, root: Path = ROOT) -> float | None:
    """Logical processors' worth of time per second that the groups allow; None is no limit."""
    quotas = [_quota_of(directory) for directory in _directories("cpu", root=root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit_bytes(*, root: Path = ROOT) -> int | None:
    """Smallest memory limit of the groups. Version 1 writes 'no limit' as a number near 2**63."""
    limits = [limit for limit, _ in _memory_groups(root)]
    return min(limits, default=None)


def memory_left_bytes(*, root: Path = ROOT) -> int | None:
    """Memory that the tightest group still allows; page cache that can be dropped is allowed."""
    left = [max(0, limit - used) for limit, used in _memory_groups(root) if used is not None]
    return min(left, default=None)


def _memory_groups(root: Path) -> list[tuple[int, int | None]]:
    groups: list[tuple[int, int | None]] = []
    for directory in _directories("memory", root=root):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = read_int(directory / limit_name)
            if limit is None or limit >= 2**60:
                continue
            used = read_int(directory / used_name)
            cache = _inactive_file_bytes(directory)
            groups.append((limit, None if used is None else max(0, used - cache)))
    return groups


def _inactive_file_bytes(directory: Path) -> int:
    for line in (read_text(directory / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdigit():
            return int(value)
    return 0
