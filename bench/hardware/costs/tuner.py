"""NCCL's own estimate of a collective: the fastest of its algorithms and protocols.

NCCL picks ring or tree, and one of three protocols (LL, LL128, Simple), by the formula repeated
here from its constants; the rate is the preset's. In-switch reduction (NVLS) enters only with a
measured bus bandwidth, from five devices on and where it gains: its formula is 30 % too fast.
Constants: https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc, in microseconds there.
"""

from math import log2

from bench.hardware.costs.collectives import Op, Parts
from bench.hardware.costs.formulas import PEER_TO_PEER, num_steps, rate_bytes_per_s, transfer_factor
from bench.hardware.links.link_levels import LinkLevel

PROTOCOLS = ("LL", "LL128", "Simple")
_BASE_S = {"ring": (6.6e-6, 14.0e-6, 8.4e-6), "tree": (6.8e-6, 14.0e-6, 8.4e-6)}
_SLOWER_CALL_S = {"ampere": 2.6e-6}
"""What a call takes beyond NCCL's base: 8 bytes sent between two A100 take 9.85 us, by the
constants 7.2. https://github.com/NVIDIA/nccl-tests/issues/331 Another machine than the table that
A100 is scored on, but looked up because that table showed the constants to be too fast: see the
preset's note for the error without it."""
_HOP_S = {
    "nvlink": {"ring": (0.6e-6, 1.9e-6, 3.4e-6), "tree": (0.6e-6, 1.25e-6, 4.0e-6)},
    "pci": {"ring": (1.0e-6, 2.5e-6, 5.7e-6), "tree": (1.0e-6, 1.9e-6, 4.0e-6)},
    "net": {"ring": (2.7e-6, 4.0e-6, 14.0e-6), "tree": (5.0e-6, 8.5e-6, 14.0e-6)},
}
_LL_MAX_BYTES_PER_S = {
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
_LL = (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_LL128 = (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, *(0.6,) * 6, 0.8, *(0.9,) * 4)
_SIMPLE = (*(0.9,) * 7, 0.8, 0.7, 0.6, 0.6, *(0.5,) * 4, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, *(0.9,) * 3)
_TREE_CORRECTION = {"LL": _LL, "LL128": _LL128, "Simple": _SIMPLE}
"""Share of a tree's rate by size, from 64 B doubling; 1 above."""


_PEER_LL_BYTES = 16384
"""Sends up to this size a peer may use LL, larger ones Simple; LL128 none. Recalled as the default
of NCCL_P2P_LL_THRESHOLD, not looked up again."""


def hardware_of(generation: str) -> str:
    """Which latencies apply: nvlink, pci or net."""
    return generation if generation in ("pci", "net") else "nvlink"


def _tree_correction(protocol: str, num_bytes: float) -> float:
    """Interpolated in log size, so that a larger message is never the faster one."""
    table = _TREE_CORRECTION[protocol]
    place = log2(max(num_bytes, 64.0) / 64.0)
    left = int(place)
    values = [table[index] if index < len(table) else 1.0 for index in (left, left + 1)]
    return values[0] + (place - left) * (values[1] - values[0])


def _base_s(generation: str, algorithm: str, protocol: int) -> float:
    return _BASE_S[algorithm][protocol] + _SLOWER_CALL_S.get(generation, 0.0)


def _ring(op: Op, *, num_bytes: float, num_ranks: int, level: LinkLevel, protocol: int) -> Parts:
    assert level.tuner is not None
    hardware = hardware_of(level.tuner)
    rate = rate_bytes_per_s(level, op=op, num_ranks=num_ranks)
    rate *= (0.5, 0.92, 1.0)[protocol]
    if protocol == 0:
        rate = min(rate, _LL_MAX_BYTES_PER_S[level.tuner])
    hop_s = _HOP_S[hardware]["ring"][protocol]
    is_large = num_bytes >= num_ranks * 4096
    if hardware == "net" and protocol == 2 and op == "all_reduce" and is_large:
        hop_s *= _NET_PLATEAU
    steps = 1 if op == "all_to_all" else num_steps(op, num_ranks=num_ranks, algorithm="ring")
    transfer_s = transfer_factor(op, num_ranks=num_ranks) * num_bytes / rate
    algorithm = "direct" if op in PEER_TO_PEER else "ring"
    return Parts(
        _base_s(level.tuner, "ring", protocol), steps * hop_s, transfer_s, "tuner", algorithm
    )


def _tree(num_bytes: float, *, num_ranks: int, level: LinkLevel, protocol: int) -> Parts:
    assert level.tuner is not None
    hardware = hardware_of(level.tuner)
    # On one node the tree is a chain; over a network every rank is a node of its own.
    depth = int(log2(num_ranks)) if hardware == "net" else num_ranks - 1
    rate = 0.92 * level.bytes_per_s
    if protocol == 0:
        rate = min(rate / 3.8, _LL_MAX_BYTES_PER_S[level.tuner])
    elif protocol == 1:
        rate *= 120 / 128 if hardware == "net" else 7 / 9
    rate *= _tree_correction(PROTOCOLS[protocol], num_bytes)
    hops_s = 2 * depth * _HOP_S[hardware]["tree"][protocol]
    return Parts(
        _base_s(level.tuner, "tree", protocol), hops_s, 2 * num_bytes / rate, "tuner", "tree"
    )


def tuner(op: Op, *, num_bytes: float, num_ranks: int, level: LinkLevel) -> Parts:
    """Time on one level by NCCL's estimate; `level.tuner` is set and `num_ranks` at least 2."""
    if op == "barrier":
        op, num_bytes = "all_reduce", 0
    # LL128 needs stores of 128 bytes to stay whole, which PCI Express does not promise.
    protocols: tuple[int, ...] = (0, 2) if level.tuner == "pci" else (0, 1, 2)
    if op in PEER_TO_PEER:
        is_small = num_bytes <= _PEER_LL_BYTES * (1 if op == "send" else num_ranks)
        protocols = (0, 2) if is_small else (2,)
    facts = {"num_bytes": num_bytes, "num_ranks": num_ranks, "level": level}
    choices = [_ring(op, **facts, protocol=protocol) for protocol in protocols]  # type: ignore[arg-type]
    if op == "all_reduce":
        choices += [
            _tree(num_bytes, num_ranks=num_ranks, level=level, protocol=p) for p in protocols
        ]
        if level.nvls_bytes_per_s is not None and num_ranks >= NVLS_MIN_RANKS:
            transfer_s = (
                transfer_factor(op, num_ranks=num_ranks) * num_bytes / level.nvls_bytes_per_s
            )
            choices.append(Parts(0.0, _NVLS_S, transfer_s, "tuner", "nvls"))
    return min(choices, key=lambda parts: parts.seconds)
