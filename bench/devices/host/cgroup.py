"""Control-group limits of this process: processor quota and memory.

A container on a 64-core host may be allowed two cores; starting 64 threads there measures the
kernel's throttling and not the program. Limits of every ancestor group count, and versions 1 and 2
and hybrids of both are read. CPU sets are left out: the kernel already folds them into the
affinity mask.
"""

import re
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


def _mounts(controller: str, *, root: Path) -> Iterator[tuple[str, Path, str]]:
    """Key of the membership, folder, and group at its top, of each hierarchy that may limit it.

    man 5 proc_pid_mountinfo: a container sees a part of a hierarchy, whose top is its own group.
    """
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), (right.split() + [""] * 3)[:3]
        is_old = kind == "cgroup" and controller in options.split(",")
        if len(fields) > 4 and (is_old or kind == "cgroup2"):
            top, folder = (
                re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), one) for one in fields[3:5]
            )
            yield controller if is_old else "", root / folder.lstrip("/"), top


def _directories(controller: str, *, root: Path) -> Iterator[Path]:
    """Group directories of this process, innermost first, in every hierarchy that may limit it.

    Inside a container the path may name a group of the host that is not mounted here; then only
    its ancestors that exist, at least the mount itself, are looked at.
    """
    paths = _memberships(root)
    mount = root / "sys/fs/cgroup"
    usual = [("", mount, "/"), (controller, mount / controller, "/")]
    if controller == "cpu":
        usual.append((controller, mount / "cpu,cpuacct", "/"))
    for key, base, top in list(_mounts(controller, root=root)) or usual:
        path = Path("/", paths.get(key, ""))
        directory = base / (path.relative_to(top) if path.is_relative_to(top) else "")
        while directory.is_relative_to(base):
            if directory.is_dir():
                yield directory
            directory = directory.parent


def _quota_of(directory: Path) -> float | None:
    text = read_text(directory / "cpu.max")
    if text is None:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        text = " ".join(str(read_int(directory / name)) for name in names)
    quota, _, period = text.partition(" ")
    is_limit = quota.isdigit() and period.isdigit() and int(period) > 0
    return int(quota) / int(period) if is_limit else None


def cpu_quota(*, root: Path = ROOT) -> float | None:
    """Logical processors' worth of time per second that the groups allow; None is no limit."""
    quotas = [_quota_of(directory) for directory in _directories("cpu", root=root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit_bytes(*, root: Path = ROOT) -> int | None:
    """Smallest memory limit of the groups."""
    return min((limit for limit, _ in _memory_groups(root)), default=None)


def memory_left_bytes(*, root: Path = ROOT) -> int | None:
    """Memory that the tightest group still allows; page cache that can be dropped is allowed."""
    groups = _memory_groups(root)
    return min((max(0, limit - used) for limit, used in groups if used is not None), default=None)


def _memory_groups(root: Path) -> list[tuple[int, int | None]]:
    """Limit and use of each group. Version 1 writes 'no limit' as a number near 2**63."""
    groups: list[tuple[int, int | None]] = []
    for directory in _directories("memory", root=root):
        stat = read_text(directory / "memory.stat") or ""
        cache = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
        for names in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = (read_int(directory / name) for name in names)
            if limit is None or limit >= 2**60:
                continue
            if used is not None and cache is not None:
                used = max(0, used - int(cache[1]))
            groups.append((limit, used))
    return groups
