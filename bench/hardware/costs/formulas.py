"""Times of collectives by latency and rate: ring, tree and full mesh, in closed form.

S is the full tensor, n the ranks, B what one device sends in one direction, alpha a step's latency.
Formulas and bus bandwidth factors: https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md
A described link has no base and no ramp, so these are exact for it. Congestion is left out.
"""

from math import log2

from bench.hardware.costs.collectives import Op, Parts
from bench.hardware.links.link_levels import LinkLevel

PEER_TO_PEER: tuple[Op, ...] = ("all_to_all", "send", "gather", "scatter")
"""Made of sends to single peers; their rate is that of sends, not of a ring."""
RAMP_LOW_BYTES, RAMP_HIGH_BYTES, RAMP_LOW_FRACTION = 2**16, 2**20, 0.5
"""Rate of small chunks against large ones. Half: low-latency protocols send a flag with each word
(NCCL's LL). Where the ramp begins and ends is a judgement from the measured NVLink tables."""


def transfer_factor(op: Op, *, num_ranks: int) -> float:
    """Bytes that one device sends, over the bytes of the full tensor."""
    if op == "all_reduce":
        return 2 * (num_ranks - 1) / num_ranks
    if op in ("all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"):
        return (num_ranks - 1) / num_ranks
    return 0.0 if op == "barrier" else 1.0


def num_steps(op: Op, *, num_ranks: int, algorithm: str) -> int:
    """Steps one after the other. Sends to several peers that leave together are one."""
    if op in ("send", "gather", "scatter"):
        return 1
    around = 2 if op in ("all_reduce", "barrier") else 1
    if algorithm == "mesh":
        return around
    if algorithm == "tree" and op in ("all_reduce", "barrier", "broadcast", "reduce"):
        return around * int(log2(num_ranks))
    return around * (num_ranks - 1)


def rate_bytes_per_s(level: LinkLevel, *, op: Op, num_ranks: int) -> float:
    """Rate of one device: in a mesh that of the links to its peers in the group; between two
    devices, and in sends to single peers, what a pair reaches.
    """
    if op == "all_to_all" and level.alltoall_bytes_per_s is not None:
        return level.alltoall_bytes_per_s
    if level.algorithm == "mesh":
        return min(
            level.bytes_per_s, (1 if op == "send" else num_ranks - 1) * level.pair_bytes_per_s
        )
    if num_ranks == 2 or op in PEER_TO_PEER:
        return level.pair_bytes_per_s
    return level.bytes_per_s


def ramp_fraction(chunk_bytes: float) -> float:
    """Rate at this chunk over the full rate: rises with the logarithm of the size."""
    if chunk_bytes <= RAMP_LOW_BYTES:
        return RAMP_LOW_FRACTION
    if chunk_bytes >= RAMP_HIGH_BYTES:
        return 1.0
    share = log2(chunk_bytes / RAMP_LOW_BYTES) / log2(RAMP_HIGH_BYTES / RAMP_LOW_BYTES)
    return RAMP_LOW_FRACTION + (1 - RAMP_LOW_FRACTION) * share


def alpha_beta(op: Op, *, num_bytes: float, num_ranks: int, level: LinkLevel) -> Parts:
    """Time on one level; `num_ranks` is at least 2. A tree moves 2 S in an all-reduce."""
    is_tree = level.algorithm == "tree" and op in ("all_reduce", "broadcast", "reduce")
    factor = 2.0 if is_tree and op == "all_reduce" else transfer_factor(op, num_ranks=num_ranks)
    rate = rate_bytes_per_s(level, op=op, num_ranks=num_ranks)
    if level.has_ramp:
        rate *= ramp_fraction(num_bytes / num_ranks)
    algorithm = level.algorithm
    if op in PEER_TO_PEER and algorithm != "mesh":
        algorithm = "direct"
    elif algorithm == "tree" and not is_tree and op != "barrier":
        algorithm = "ring"
    return Parts(
        level.base_s,
        num_steps(op, num_ranks=num_ranks, algorithm=level.algorithm) * level.hop_s,
        factor * num_bytes / rate,
        "alpha-beta",
        algorithm,
    )
