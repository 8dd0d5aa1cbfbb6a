"""What a collective costs on a modelled link: one number with the ends of its error band.

On one level that is the measured curve, else NCCL's tuner, else alpha-beta. A curve is split into a
floor (its smallest message) and the rest, time on the wire. Between two measured group sizes and
beyond the largest the floor follows the steps, the rest the bytes that a device sends; on a
narrower relative of the measured link only the rest grows.

Over two levels each node reduces inside, exchanges each device's share over its own adapter and
spreads the result; stages are pipelined, so that of the times on the wires the longer counts, and
the whole is never faster than the faster level alone. Congestion between groups is left out.

Of any net's step under DDP a formula says what of the exchange is waited for; a decoder's step is
in `training_step`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from bench.hardware.costs.collectives import METHODS, Cost, Group, Method, Op, Parts, group_of
from bench.hardware.costs.formulas import (
    PEER_TO_PEER,
    alpha_beta,
    num_steps,
    transfer_factor,
    tuner,
)
from bench.hardware.costs.training_jobs import TrainingTime
from bench.hardware.links.curves import Curve
from bench.hardware.links.presets import LinkLevel
from bench.hardware.links.topology import Topology, parse_topology

NOTHING = Parts(0.0, 0.0, 0.0, "infinite", "")
SCALED_ERROR_FRACTION = 0.1
"""Least band of a curve that was carried to a relative or to larger groups: judgement; scaled from
H100, the H800's large all-reduce and all-to-all come out 6 and 8 % from what was measured."""
LAUNCH_S = 6.6e-6
"""What of a curve's floor is paid once per call, however many levels there are: NCCL's base of its
fastest protocol. https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc"""


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
            parts = self.parts(op, num_bytes, group=group)
            error = max(_error(level, parts.method) for level in self._levels(group))
            seconds = parts.seconds
            low_s, high_s = seconds / (1 + error), seconds * (1 + error)
            known = Cost(seconds, low_s, high_s, parts.method, parts.algorithm)
            self._known[key] = known
        return known

    def parts(self, op: Op, num_bytes: float, *, group: Group) -> Parts:
        """Return the same, split into call, latency and level."""
        num_bytes = 0.0 if op == "barrier" else num_bytes
        levels = self._levels(group)
        if len(levels) == 1:
            return self._on(levels[0], op, num_bytes, num_ranks=group.num_ranks)
        inner, outer = levels
        if op == "send":
            return self._on(outer, op, num_bytes, num_ranks=2)
        inside, across = group.ranks_per_node, group.num_nodes
        last_bytes = num_bytes / inside
        if op in ("all_reduce", "barrier"):
            halves: tuple[Op, ...] = ("reduce_scatter", "all_gather")
            stages = [self._on(inner, half, num_bytes, num_ranks=inside) for half in halves]
        elif op in ("all_to_all", "gather", "scatter"):
            # Whoever is in the same node gets its part inside, everybody else through the adapter.
            stages = [self._on(inner, op, num_bytes / across, num_ranks=inside)]
            last_bytes = num_bytes
        else:
            stages = [self._on(inner, op, num_bytes, num_ranks=inside)]
        last = self._ways(outer, op, last_bytes, num_ranks=across)
        whole = min((_pipelined(stages, way) for way in last), key=lambda parts: parts.seconds)
        if op in PEER_TO_PEER:  # both levels carry a part of it
            return whole
        return replace(whole, hops_s=whole.hops_s + self._missing_s(whole, op, num_bytes, group))

    def _missing_s(self, whole: Parts, op: Op, num_bytes: float, group: Group) -> float:
        """What keeps two levels from being faster than the faster of them alone, or than one node.

        Stages were measured one by one, without what it takes to follow one on the other: eight
        H100 in nodes of four came out faster than on one node.
        """
        inner, outer = self._levels(group)
        joined = min(group.num_ranks, max(group.ranks_per_node, inner.largest_domain or 0))
        least_s = self._on(inner, op, num_bytes, num_ranks=joined).seconds
        if outer.bytes_per_s > inner.bytes_per_s:
            flat = self._on(outer, op, num_bytes, num_ranks=group.num_ranks)
            node = self._on(inner, op, num_bytes, num_ranks=group.ranks_per_node)
            least_s = max(node.seconds, min(least_s, flat.seconds))
        return max(0.0, least_s - whole.seconds)

    def _levels(self, group: Group) -> list[LinkLevel]:
        inner, outer = self.topology.inner, self.topology.outer
        if outer is None or group.num_nodes < 2:
            return [inner]
        return [outer] if group.ranks_per_node < 2 else [inner, outer]

    def _on(self, level: LinkLevel, op: Op, num_bytes: float, *, num_ranks: int) -> Parts:
        """Time of `num_bytes` (the full tensor) over one level with `num_ranks` devices on it."""
        ways = self._ways(level, op, num_bytes, num_ranks=num_ranks)
        return min(ways, key=lambda parts: parts.seconds)

    def _ways(self, level: LinkLevel, op: Op, num_bytes: float, *, num_ranks: int) -> list[Parts]:
        """What each algorithm would take; one alone where it was measured."""
        if num_ranks < 2 or level.is_infinite:
            return [NOTHING]
        if self.use_curves and level.curve is not None:
            asked: Op = "all_reduce" if op == "barrier" else op
            parts = _from_curve(asked, num_bytes=num_bytes, num_ranks=num_ranks, curve=level.curve)
            if parts is not None and level.curve_factor is not None:
                transfer_s = parts.transfer_s * level.curve_factor
                return [replace(parts, transfer_s=transfer_s, method="scaled-curve")]
            if parts is not None:
                return [parts]
        formula = alpha_beta if level.tuner is None else tuner
        return formula(op, num_bytes=num_bytes, num_ranks=num_ranks, level=level)


def _error(level: LinkLevel, method: Method) -> float:
    measured = level.curve_error_fraction
    if measured is None or method not in ("curve", "scaled-curve"):
        return level.error_fraction
    return measured if method == "curve" else max(measured, SCALED_ERROR_FRACTION)


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


def _from_curve(op: Op, *, num_bytes: float, num_ranks: int, curve: Curve) -> Parts | None:
    groups = curve.groups(op)
    if not groups or num_ranks < groups[0]:
        return None
    method: Method = "curve"
    low = max(ranks for ranks in groups if ranks <= num_ranks)
    series = curve.series(op, num_ranks=low)
    floor_s, transfer_s = series.floor_s, series.seconds(num_bytes) - series.floor_s
    above = [ranks for ranks in groups if ranks > num_ranks]
    if low != num_ranks and above:
        upper = curve.series(op, num_ranks=above[0])
        floor, wire = _share(op, low=low, high=above[0], num_ranks=num_ranks)
        floor_s += floor * (upper.floor_s - floor_s)
        transfer_s += wire * (upper.seconds(num_bytes) - upper.floor_s - transfer_s)
    elif low != num_ranks:
        steps = [num_steps(op, num_ranks=ranks, algorithm="ring") for ranks in (low, num_ranks)]
        sent = [transfer_factor(op, num_ranks=ranks) for ranks in (low, num_ranks)]
        floor_s, transfer_s = floor_s * (steps[1] / steps[0]), transfer_s * (sent[1] / sent[0])
        method = "scaled-curve"
    base_s = min(floor_s, LAUNCH_S)
    algorithm = "direct" if op == "all_to_all" else ""
    return Parts(base_s, floor_s - base_s, transfer_s, method, algorithm)


def _share(op: Op, *, low: int, high: int, num_ranks: int) -> tuple[float, float]:
    """How far between two group sizes the floor and the time on the wire are."""
    floor = (num_ranks - low) / (high - low)
    at_low, at_high = (transfer_factor(op, num_ranks=ranks) for ranks in (low, high))
    if at_high == at_low:
        return floor, floor
    return floor, (transfer_factor(op, num_ranks=num_ranks) - at_low) / (at_high - at_low)


@cache
def model_of(link: str) -> CostModel:
    """Return the model of a link as a layout names it.

    Its text crosses processes and is read here: JSON has no infinite rate, and rows show the text.
    """
    return CostModel(parse_topology(link))


BACKWARD_FRACTION = 2 / 3
"""Of a step's compute, beside which gradients can travel (https://arxiv.org/abs/2006.15704): those
of activations and of weights, each as much as forward."""
BUCKET_BYTES = 25 * 2**20
"""Gradients that DDP sends together; torch's default."""


def data_parallel_step(
    compute_s: float,
    *,
    gradient_bytes: int,
    num_devices: int,
    model: CostModel,
    is_overlapped: bool = True,
) -> TrainingTime:
    """Time a step of DDP whose compute takes `compute_s` on one device.

    Overlapped, buckets leave while backward runs: what does not fit beside it is exposed, and the
    last bucket always is, since nothing is left to hide it.
    """
    group = model.group_of(range(num_devices))
    sizes = [BUCKET_BYTES] * (gradient_bytes // BUCKET_BYTES)
    sizes += [rest_bytes] if (rest_bytes := gradient_bytes % BUCKET_BYTES) else []
    costs = [model.cost("all_reduce", num_bytes=size, group=group).seconds for size in sizes]
    total_s = sum(costs)
    if not is_overlapped or not costs:
        return TrainingTime(products_s=compute_s, data_s=total_s)
    beyond_s = total_s - BACKWARD_FRACTION * compute_s
    return TrainingTime(products_s=compute_s, data_s=max(beyond_s, costs[0]))
