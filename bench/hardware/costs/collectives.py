"""What a collective is, to a cost model: its name, its bytes, and how its ranks lie on the nodes.

Bytes are those of the full tensor, as nccl-tests counts them: the output of an all-gather, the
input of a reduce-scatter, the whole send buffer of one rank in an all-to-all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Op = Literal[
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
    "send",
    "barrier",
]
OPS: tuple[Op, ...] = get_args(Op)
Method = Literal["infinite", "curve", "scaled-curve", "tuner", "alpha-beta"]
"""Where a time comes from: a link that costs nothing; measured on this link; measured on a relative
or a smaller group and scaled; NCCL's own formula; latency and rate."""
METHODS: tuple[Method, ...] = get_args(Method)
"""From the surest to the least sure; what is made of two parts is as sure as the worse."""


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks of one collective: how many, on how many nodes, at most how many on one node."""

    num_ranks: int
    num_nodes: int = 1

    @property
    def ranks_per_node(self) -> int:
        """Ranks on the fullest node."""
        return -(-self.num_ranks // self.num_nodes)


@dataclass(frozen=True, slots=True)
class Cost:
    """Modelled time of one collective, with the ends of its error band and where it comes from."""

    seconds: float
    low_s: float
    high_s: float
    method: Method
    algorithm: str
    """ring, tree, nvls, hierarchical, mesh, direct; '' when there is nothing to choose."""


@dataclass(frozen=True, slots=True)
class Parts:
    """One collective on one level, split so that levels can be put together.

    The split matters where two levels work at once: what a call costs is paid once, latencies of
    the hops add up, and of the times on the wires the longer one counts.
    """

    base_s: float
    """Once per call: launch and protocol."""
    hops_s: float
    """Latency of all steps."""
    transfer_s: float
    """Bytes over rate."""
    method: Method
    algorithm: str

    @property
    def seconds(self) -> float:
        """The whole on one level."""
        return self.base_s + self.hops_s + self.transfer_s


def group_of(ranks: Sequence[int], *, node_size: int | None) -> Group:
    """Return how `ranks` (global numbers) lie on nodes of `node_size` devices; None: one node."""
    if node_size is None or node_size >= max(ranks, default=0) + 1:
        return Group(len(ranks))
    return Group(len(ranks), len({rank // node_size for rank in ranks}))
