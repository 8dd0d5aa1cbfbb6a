"""Where a link stands on an axis of bandwidth: bytes per second, one direction, per device.

The specified rate, because that is what links are known by; of two levels the slower one. None for
a link without a finite rate, and for one that only its own file describes: a name out of a result
file is never opened as a path.
"""

from __future__ import annotations

from math import isfinite

from bench.core.errors import BenchError
from bench.hardware.links.presets import LinkLevel, load_links
from bench.hardware.links.topology import parse_topology

_MOST_CHARACTERS = 300
_FILES = (".yaml", ".yml")


def bytes_per_s_of(name: str) -> float | None:
    """Rate of a link as a row names it: 'h800-nvlink', 'bw=25GB/s,...', 'h800-nvlink*8/ndr*4'."""
    if len(name) > _MOST_CHARACTERS or any(ending in name.lower() for ending in _FILES):
        return None
    try:
        topology = parse_topology(name)
    except BenchError:
        return None
    rates = [_rate(level) for level in (topology.inner, topology.outer) if level is not None]
    finite = [rate for rate in rates if isfinite(rate) and rate > 0.0]
    return min(finite, default=None)


def _rate(level: LinkLevel) -> float:
    # A level's own rate is what large messages reach.
    specified = {link.id: link.bytes_per_s for link in load_links()}.get(level.text)
    if specified is not None:
        return specified
    # A mesh that was described by one of its links has no rate of the whole device.
    return level.bytes_per_s if isfinite(level.bytes_per_s) else level.pair_bytes_per_s
