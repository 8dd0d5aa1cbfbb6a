"""The queue in front of a link: collectives that share one follow one another.

One clock for the links inside a node and one for those between nodes, so that tensor parallel
traffic inside a node does not hold up the gradients between nodes. A collective over both counts
as between nodes.
"""

from bench.hardware.costs.collectives import Group

INSIDE, BETWEEN = 0, 1
"""Which clock; the replay of a trace uses the same two."""
NUM_LINKS = 2
HOST_RESOLUTION_S = 1e-3
"""What a collective must take at least on a CPU: a thread is woken 0.2 ms late, and 4 ms where
another one holds the interpreter, so shorter ones would measure that."""
DEVICE_RESOLUTION_S = 20e-6
"""On an accelerator: two launches and what the device's timer resolves (1 us on some); not measured
further."""


def level_of(group: Group) -> int:
    """Return which link carries a group."""
    return INSIDE if group.num_nodes == 1 else BETWEEN


class SerialLinks:
    """When each link is free again, in seconds of one clock. Not safe to share between threads."""

    def __init__(self) -> None:
        self._free_s = [0.0] * NUM_LINKS

    def reserve(self, level: int, *, now_s: float, duration_s: float) -> tuple[float, float]:
        """Return begin and end of a transfer that is ready now, and take the link for it."""
        start_s = max(now_s, self._free_s[level])
        self._free_s[level] = start_s + duration_s
        return start_s, start_s + duration_s

    def extend(self, level: int, *, until_s: float) -> None:
        """Say that the link was busy longer than modelled."""
        self._free_s[level] = max(self._free_s[level], until_s)
