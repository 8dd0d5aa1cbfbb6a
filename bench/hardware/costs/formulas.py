"""Times of collectives by formula: alpha-beta for any link, NCCL's own estimate for those it knows.

Alpha-beta is latency and rate in closed form, for ring, tree and full mesh. Formulas and bus
bandwidth factors: https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md
A described link has no base and no ramp, so these are exact for it. Congestion is left out.

`tuner` repeats NCCL's choice by predicted time, at the preset's rate: ring or tree (for all-reduce
alone) and one of three protocols (LL, LL128, Simple). `alpha_beta` picks the faster in the same way
for a preset that NCCL does not know. Constants, in microseconds there:
https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc. In-switch reduction (NVLS) enters
only with a measured bus bandwidth and where it gains: its formula is 30 % too fast.

Gloo takes a ring whatever the size, and so does a described or measured link that does not say
otherwise: https://github.com/pytorch/gloo/blob/main/gloo/allreduce.cc, UNSPECIFIED.
"""

from math import log2

from bench.hardware.costs.collectives import Op, Parts
from bench.hardware.links.presets import LinkLevel

PEER_TO_PEER: tuple[Op, ...] = ("all_to_all", "send", "gather", "scatter")
"""Made of sends to single peers; their rate is that of sends, not of a ring."""
_TREE_OPS = ("all_reduce", "barrier", "broadcast", "reduce")
RAMP_LOW_BYTES, RAMP_HIGH_BYTES, RAMP_LOW_FRACTION = 2**16, 2**20, 0.5
"""Rate of small chunks against large ones. Half: low-latency protocols send a flag with each word
(NCCL's LL). Where the ramp begins and ends is a judgement from the measured NVLink tables."""
_LL, _LL128, _SIMPLE = range(3)
"""NCCL's protocols; the tables below are in this order."""
_BASE_S = {"ring": (6.6e-6, 14.0e-6, 8.4e-6), "tree": (6.8e-6, 14.0e-6, 8.4e-6)}
_SLOWER_CALL_S: dict[str | None, float] = {"ampere": 2.6e-6, "blackwell": 0.7e-6}
"""What a call takes beyond NCCL's base: 8 bytes sent between two A100 take 9.85 us, by the
constants 7.2. https://github.com/NVIDIA/nccl-tests/issues/331 Another machine than the table that
A100 is scored on, but looked up because that table showed the constants to be too fast: see the
preset's note for the error without it. Eight B200 take 3.0 us for 8 bytes where H200 and H800 take
2.3, set up alike (https://github.com/NVIDIA/nccl/issues/1940); NCCL has one for every NVLink."""
_HOP_S = {
    "nvlink": {"ring": (0.6e-6, 1.9e-6, 3.4e-6), "tree": (0.6e-6, 1.25e-6, 4.0e-6)},
    "pci": {"ring": (1.0e-6, 2.5e-6, 5.7e-6), "tree": (1.0e-6, 1.9e-6, 4.0e-6)},
    "net": {"ring": (2.7e-6, 4.0e-6, 14.0e-6), "tree": (5.0e-6, 8.5e-6, 14.0e-6)},
}
_LL_MAX_BYTES_PER_S: dict[str | None, float] = {
    "volta": 39.0e9,
    "ampere": 87.7e9,
    "hopper": 141.0e9,
    "blackwell": 282.0e9,
    "pci": 39.0e9,
    "net": 20.4e9,
}
"""One node: by generation; over a network by host, four nodes and more."""
_NVLS_S = 25.0e-6
NVLS_MIN_RANKS = 5
"""Below, H200 gained nothing.
https://github.com/stas00/ml-engineering/blob/master/network/README.md"""
_NET_PLATEAU = 1.4
"""Ring, Simple, all-reduce over several nodes: latency grows once chunks exceed 4 KiB a rank."""
_TREE_SHARES = (
    (1, 1, 1, 1, 0.9, 0.8, *(0.7,) * 4, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, *(0.6,) * 6, 0.8, *(0.9,) * 4),
    (*(0.9,) * 7, 0.8, 0.7, 0.6, 0.6, *(0.5,) * 4, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, *(0.9,) * 3),
)
"""Share of a tree's rate by size, from 64 B doubling; 1 above."""
_PEER_LL_BYTES = 16384
"""Sends up to this size a peer may use LL, larger ones Simple; LL128 none. Recalled as the default
of NCCL_P2P_LL_THRESHOLD, not looked up again."""


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
    if algorithm == "tree" and op in _TREE_OPS:
        return around * int(log2(num_ranks))
    return around * (num_ranks - 1)


def rate_bytes_per_s(level: LinkLevel, *, op: Op, num_ranks: int) -> float:
    """Rate of one device: in a mesh that of the links to its peers in the group; between two
    devices, and in sends to single peers, what a pair reaches.
    """
    if op == "all_to_all" and level.alltoall_bytes_per_s is not None:
        return level.alltoall_bytes_per_s
    if level.algorithm == "mesh":
        num_links = 1 if op == "send" else num_ranks - 1
        return min(level.bytes_per_s, num_links * level.pair_bytes_per_s)
    if num_ranks == 2 or op in PEER_TO_PEER:
        return level.pair_bytes_per_s
    return level.bytes_per_s


def ramp_fraction(chunk_bytes: float) -> float:
    """Rate at this chunk over the full rate: rises with the logarithm of the size."""
    within_bytes = min(max(chunk_bytes, RAMP_LOW_BYTES), RAMP_HIGH_BYTES)
    share = log2(within_bytes / RAMP_LOW_BYTES) / log2(RAMP_HIGH_BYTES / RAMP_LOW_BYTES)
    return RAMP_LOW_FRACTION + (1 - RAMP_LOW_FRACTION) * share


def alpha_beta(op: Op, *, num_bytes: float, num_ranks: int, level: LinkLevel) -> list[Parts]:
    """Times on one level, one for each algorithm it may take; `num_ranks` is at least 2."""
    names = [level.algorithm]
    if level.algorithm == "fastest":
        names = ["ring", "tree"] if op in ("all_reduce", "barrier") else ["ring"]
    rate = rate_bytes_per_s(level, op=op, num_ranks=num_ranks)
    if level.has_ramp:
        rate *= ramp_fraction(num_bytes / num_ranks)
    ways = []
    for name in names:
        hops_s = num_steps(op, num_ranks=num_ranks, algorithm=name) * level.hop_s
        factor = transfer_factor(op, num_ranks=num_ranks)
        if (op, name) == ("all_reduce", "tree"):
            factor = 2.0
        if op in PEER_TO_PEER and name != "mesh":
            name = "direct"
        elif name == "tree" and op not in _TREE_OPS:
            name = "ring"
        ways.append(Parts(level.base_s, hops_s, factor * num_bytes / rate, "alpha-beta", name))
    return ways


def tuner(op: Op, *, num_bytes: float, num_ranks: int, level: LinkLevel) -> list[Parts]:
    """Times on one level by NCCL's estimate, one for each way it may take; `level.tuner` is set."""
    if op == "barrier":
        op, num_bytes = "all_reduce", 0
    # LL128 needs stores of 128 bytes to stay whole, which PCI Express does not promise.
    protocols = [_LL, _SIMPLE] if level.tuner == "pci" else [_LL, _LL128, _SIMPLE]
    if op in PEER_TO_PEER:
        is_small = num_bytes <= _PEER_LL_BYTES * (1 if op == "send" else num_ranks)
        protocols = [_LL, _SIMPLE] if is_small else [_SIMPLE]
    choices = [
        _ring(op, num_bytes=num_bytes, num_ranks=num_ranks, level=level, protocol=protocol)
        for protocol in protocols
    ]
    if op == "all_reduce":
        choices += [
            _tree(num_bytes, num_ranks=num_ranks, level=level, protocol=protocol)
            for protocol in protocols
        ]
        if level.nvls_bytes_per_s is not None and num_ranks >= NVLS_MIN_RANKS:
            sent_bytes = transfer_factor(op, num_ranks=num_ranks) * num_bytes
            transfer_s = sent_bytes / level.nvls_bytes_per_s
            choices.append(Parts(0.0, _NVLS_S, transfer_s, "tuner", "nvls"))
    return choices


def _ring(op: Op, *, num_bytes: float, num_ranks: int, level: LinkLevel, protocol: int) -> Parts:
    rate = rate_bytes_per_s(level, op=op, num_ranks=num_ranks) * (0.5, 0.92, 1.0)[protocol]
    if protocol == _LL:
        rate = min(rate, _LL_MAX_BYTES_PER_S[level.tuner])
    base_s, hop_s = _latencies_s(level, "ring", protocol)
    is_large = num_bytes >= num_ranks * 4096
    if level.tuner == "net" and protocol == _SIMPLE and op == "all_reduce" and is_large:
        hop_s *= _NET_PLATEAU
    steps = 1 if op == "all_to_all" else num_steps(op, num_ranks=num_ranks, algorithm="ring")
    transfer_s = transfer_factor(op, num_ranks=num_ranks) * num_bytes / rate
    algorithm = "direct" if op in PEER_TO_PEER else "ring"
    return Parts(base_s, steps * hop_s, transfer_s, "tuner", algorithm)


def _tree(num_bytes: float, *, num_ranks: int, level: LinkLevel, protocol: int) -> Parts:
    is_net = level.tuner == "net"
    # On one node the tree is a chain; over a network every rank is a node of its own.
    depth = int(log2(num_ranks)) if is_net else num_ranks - 1
    rate = 0.92 * level.bytes_per_s
    if protocol == _LL:
        rate = min(rate / 3.8, _LL_MAX_BYTES_PER_S[level.tuner])
    elif protocol == _LL128:
        rate *= 120 / 128 if is_net else 7 / 9
    # Interpolated in log size, so that a larger message is never the faster one.
    shares = (*_TREE_SHARES[protocol], 1.0, 1.0)
    place = log2(max(num_bytes, 64.0) / 64.0)
    left = min(int(place), len(shares) - 2)
    rate *= shares[left] + (place - left) * (shares[left + 1] - shares[left])
    base_s, hop_s = _latencies_s(level, "tree", protocol)
    return Parts(base_s, 2 * depth * hop_s, 2 * num_bytes / rate, "tuner", "tree")


def _latencies_s(level: LinkLevel, algorithm: str, protocol: int) -> tuple[float, float]:
    hardware = level.tuner if level.tuner in ("pci", "net") else "nvlink"
    base_s = _BASE_S[algorithm][protocol] + _SLOWER_CALL_S.get(level.tuner, 0.0)
    return base_s, _HOP_S[hardware][algorithm][protocol]
