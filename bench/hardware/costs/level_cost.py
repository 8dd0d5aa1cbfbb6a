"""Time of one collective on one level: the measured curve, else NCCL's tuner, else alpha-beta.

A curve is split into a floor (its smallest message) and the rest, time on the wire. Between two
measured group sizes and beyond the largest the floor follows the steps, the rest the bytes that
a device sends; on a narrower relative of the measured link only the rest grows.
"""

from bench.hardware.costs.collectives import Method, Op, Parts
from bench.hardware.costs.formulas import alpha_beta, num_steps, transfer_factor
from bench.hardware.costs.tuner import tuner
from bench.hardware.links.curves import Curve
from bench.hardware.links.link_levels import LinkLevel

NOTHING = Parts(0.0, 0.0, 0.0, "infinite", "")
LAUNCH_S = 6.6e-6
"""What of a curve's floor is paid once per call, however many levels there are: NCCL's base of its
fastest protocol. https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc"""


def _share(op: Op, *, low: int, high: int, num_ranks: int) -> tuple[float, float]:
    """How far between two group sizes the floor and the time on the wire are."""
    floor = (num_ranks - low) / (high - low)
    ends = [transfer_factor(op, num_ranks=ranks) for ranks in (low, high)]
    if ends[1] == ends[0]:
        return floor, floor
    level = (transfer_factor(op, num_ranks=num_ranks) - ends[0]) / (ends[1] - ends[0])
    return floor, level


def _grown(op: Op, *, last: int, num_ranks: int) -> tuple[float, float]:
    """Growth of the floor and of the time on the wire beyond the largest measured group."""
    steps = [num_steps(op, num_ranks=ranks, algorithm="ring") for ranks in (last, num_ranks)]
    factors = [transfer_factor(op, num_ranks=ranks) for ranks in (last, num_ranks)]
    return steps[1] / steps[0], factors[1] / factors[0]


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
        floor, level = _share(op, low=low, high=above[0], num_ranks=num_ranks)
        floor_s += floor * (upper.floor_s - floor_s)
        transfer_s += level * (upper.seconds(num_bytes) - upper.floor_s - transfer_s)
    elif low != num_ranks:
        floor, level = _grown(op, last=low, num_ranks=num_ranks)
        floor_s, transfer_s, method = floor_s * floor, transfer_s * level, "scaled-curve"
    base_s = min(floor_s, LAUNCH_S)
    algorithm = "direct" if op == "all_to_all" else ""
    return Parts(base_s, floor_s - base_s, transfer_s, method, algorithm)


def level_cost(
    op: Op, *, num_bytes: float, num_ranks: int, level: LinkLevel, use_curves: bool = True
) -> Parts:
    """Time of `num_bytes` (the full tensor) over one level with `num_ranks` devices on it."""
    if num_ranks < 2 or level.is_infinite:
        return NOTHING
    if use_curves and level.curve is not None:
        asked: Op = "all_reduce" if op == "barrier" else op
        size = 0.0 if op == "barrier" else num_bytes
        parts = _from_curve(asked, num_bytes=size, num_ranks=num_ranks, curve=level.curve)
        if parts is not None:
            if level.curve_factor is None:
                return parts
            transfer_s = parts.transfer_s * level.curve_factor
            return Parts(parts.base_s, parts.hops_s, transfer_s, "scaled-curve", parts.algorithm)
    formula = alpha_beta if level.tuner is None else tuner
    return formula(op, num_bytes=num_bytes, num_ranks=num_ranks, level=level)
