"""Which logical processors share a core, and which cores share a memory node.

Pure arithmetic over Linux's /sys, so that a tree in a test stands for any machine. Benchmarks run
one thread per physical core: a second one on the same core makes step times depend on the
scheduler's luck. Without /sys (other systems) every logical processor counts as a core of one node.
"""

from collections.abc import Iterable
from pathlib import Path

from bench.devices.host.cgroup import read_text


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """`'0-2,8'` is (0, 1, 2, 8)."""
    ids: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            ids.extend(range(int(first), int(last or first) + 1))
    return tuple(sorted(set(ids)))


def group_siblings(cpu_ids: Iterable[int], *, root: Path) -> tuple[tuple[int, ...], ...]:
    """The given logical processors grouped by physical core, in order of their lowest id."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for cpu_id in sorted(cpu_ids):
        topology = root / f"sys/devices/system/cpu/cpu{cpu_id}/topology"
        # core_cpus_list is the newer name of the same list.
        text = read_text(topology / "core_cpus_list") or read_text(
            topology / "thread_siblings_list"
        )
        siblings = parse_cpu_list(text) if text else (cpu_id,)
        groups.setdefault(siblings, []).append(cpu_id)
    return tuple(tuple(group) for group in groups.values())


def numa_nodes(*, root: Path) -> tuple[tuple[int, ...], ...]:
    """Logical processors of each memory node that has any, in order of the nodes' numbers."""
    nodes: list[tuple[int, tuple[int, ...]]] = []
    for directory in (root / "sys/devices/system/node").glob("node[0-9]*"):
        cpu_ids = parse_cpu_list(read_text(directory / "cpulist") or "")
        if cpu_ids:
            nodes.append((int(directory.name.removeprefix("node")), cpu_ids))
    return tuple(cpu_ids for _, cpu_ids in sorted(nodes))


def pick_cpus(
    cores: tuple[tuple[int, ...], ...],
    *,
    nodes: tuple[tuple[int, ...], ...],
    num_cores: int,
) -> tuple[int, ...]:
    """One logical id for each of `num_cores` cores; all from one memory node where one suffices.

    Of several sufficient nodes the one with the most of these cores is taken, then the first.
    Where none suffices, whole nodes are used in that same order.
    """
    ids = [core[0] for core in cores]
    by_node = [[cpu_id for cpu_id in ids if cpu_id in node] for node in nodes]
    ordered: list[int] = []
    for members in sorted(by_node, key=len, reverse=True):
        ordered.extend(members)
    ordered.extend(cpu_id for cpu_id in ids if cpu_id not in ordered)
    return tuple(sorted(ordered[:num_cores]))
