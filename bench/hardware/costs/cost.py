"""What a collective costs on a modelled link: one number with the ends of its error band.

One level is `level_cost`. Over two levels the library reduces inside each node, exchanges the share
of each device over its own adapter and spreads the result; the stages are pipelined, so that of the
times on the wires the longer counts. Answers are kept: a step asks the same few again and again.
Congestion between groups is left out; the serial link of the emulation adds it within one group.
"""

from collections.abc import Sequence
from functools import cache

from bench.hardware.costs.collectives import METHODS, Cost, Group, Method, Op, Parts, group_of
from bench.hardware.costs.level_cost import NOTHING, level_cost
from bench.hardware.links.link_levels import LinkLevel
from bench.hardware.links.topology import Topology, parse_topology

SCALED_ERROR_FRACTION = 0.1
"""Least band of a curve that was carried to a relative or to larger groups: judgement; scaled from
H100, the H800's large all-reduce and all-to-all come out 6 and 8 % from what was measured."""


class CostModel:
    """Costs of collectives on one topology; `use_curves=False` leaves measured curves out."""

    def __init__(self, topology: Topology, *, use_curves: bool = True) -> None:
        self.topology = topology
        self.use_curves = use_curves
        self._known: dict[tuple[Op, int, Group], Cost] = {}

    def group_of(self, ranks: Sequence[int]) -> Group:
        """Return how these global ranks lie on the nodes of the topology."""
        return group_of(ranks, node_size=self.topology.node_size)

    def cost(self, op: Op, *, num_bytes: int, group: Group) -> Cost:
        """Return the time of `op` on `num_bytes` of full tensor; 0 s for a group of one."""
        key = (op, num_bytes, group)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._banded(self.parts(op, num_bytes, group=group), group)
        return known

    def parts(self, op: Op, num_bytes: float, *, group: Group) -> Parts:
        """Return the same, split into call, latency and level."""
        if group.num_ranks < 2:
            return NOTHING
        if self.topology.outer is None or group.num_nodes < 2:
            return self._on(self.topology.inner, op, num_bytes, num_ranks=group.num_ranks)
        if group.ranks_per_node < 2:
            return self._on(self.topology.outer, op, num_bytes, num_ranks=group.num_ranks)
        return self._two_levels(op, num_bytes, group=group)

    def _on(self, level: LinkLevel, op: Op, num_bytes: float, *, num_ranks: int) -> Parts:
        return level_cost(
            op, num_bytes=num_bytes, num_ranks=num_ranks, level=level, use_curves=self.use_curves
        )

    def _two_levels(self, op: Op, num_bytes: float, *, group: Group) -> Parts:
        outer = self.topology.outer
        assert outer is not None
        if op == "send":
            return self._on(outer, op, num_bytes, num_ranks=2)
        inside, across = group.ranks_per_node, group.num_nodes
        inner = self.topology.inner
        if op in ("all_reduce", "barrier"):
            size = 0.0 if op == "barrier" else num_bytes
            stages = [
                self._on(inner, "reduce_scatter", size, num_ranks=inside),
                self._on(inner, "all_gather", size, num_ranks=inside),
            ]
            last = self._on(outer, op, size / inside, num_ranks=across)
        elif op in ("all_to_all", "gather", "scatter"):
            # Whoever is in the same node gets its part inside, everybody else through the adapter.
            stages = [self._on(inner, op, num_bytes / across, num_ranks=inside)]
            last = self._on(outer, op, num_bytes, num_ranks=across)
        else:
            stages = [self._on(inner, op, num_bytes, num_ranks=inside)]
            last = self._on(outer, op, num_bytes / inside, num_ranks=across)
        return _pipelined(stages, last)

    def _banded(self, parts: Parts, group: Group) -> Cost:
        seconds = parts.seconds
        error = max(
            (self._error(level, parts.method) for level in self._levels(group)), default=0.0
        )
        return Cost(
            seconds, seconds / (1 + error), seconds * (1 + error), parts.method, parts.algorithm
        )

    def _levels(self, group: Group) -> list[LinkLevel]:
        """Levels that a group uses."""
        inner, outer = self.topology.inner, self.topology.outer
        if outer is None or group.num_nodes < 2:
            return [inner]
        return [outer] if group.ranks_per_node < 2 else [inner, outer]

    def _error(self, level: LinkLevel, method: Method) -> float:
        if method == "curve" and level.curve_error_fraction is not None:
            return level.curve_error_fraction
        if method == "scaled-curve" and level.curve_error_fraction is not None:
            return max(level.curve_error_fraction, SCALED_ERROR_FRACTION)
        return level.error_fraction


def _pipelined(stages: list[Parts], last: Parts) -> Parts:
    """Stages inside the node share its link; the adapter works beside them."""
    parts = [*stages, last]
    return Parts(
        max(part.base_s for part in parts),
        sum(part.hops_s for part in parts),
        max(sum(stage.transfer_s for stage in stages), last.transfer_s),
        max((part.method for part in parts), key=METHODS.index),
        "hierarchical",
    )


@cache
def model_of(link: str) -> CostModel:
    """Return the model of a link as a layout names it.

    Its text crosses processes and is read here: JSON has no infinite rate, and rows show the text.
    """
    return CostModel(parse_topology(link))
