"""What a cost model needs of one link, whichever way the link was given.

A preset, a text such as `bw=25GB/s,latency=5us` and a link file become a `LinkLevel`. Where a
preset does not say what it reaches or how long a step takes, the defaults here stand in; they are
judgements and the error band of such a link is wide.
"""

import math
from dataclasses import dataclass

from bench.hardware.links.curves import Curve, load_curve
from bench.hardware.links.presets import link

DEFAULT_REACHED_FRACTION = 0.8
"""Reached over specified where nobody measured: 0.74 on A100, 0.81 on H100, 0.8 on MI250."""
DEFAULT_HOP_S, DEFAULT_BASE_S = 3.4e-6, 8.4e-6
"""NCCL's ring with the Simple protocol on NVLink, for links whose latency is not public.
https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc"""
DEFAULT_ERROR_FRACTION = {"high": 0.2, "medium": 0.3, "low": 0.5}
"""By the preset's confidence, where no formula was ever compared with a measurement: judgement."""
GIVEN_ERROR_FRACTION = 0.1
"""Band of a link that the user described and gave no error for: judgement, as of a good fit."""


@dataclass(frozen=True, kw_only=True)
class LinkLevel:
    """One link as a cost model sees it: per device, one direction, what large messages reach."""

    text: str
    """What `parse_topology` reads it back from."""
    algorithm: str
    """ring, tree, mesh (one link per pair, all used at once), or infinite."""
    bytes_per_s: float
    pair_bytes_per_s: float
    """Between two devices; a mesh has less here than in all."""
    hop_s: float
    base_s: float = 0.0
    has_ramp: bool = False
    """Whether small chunks travel slower: presets; a described link is taken literally."""
    tuner: str | None = None
    """Which constants of NCCL's tuner apply; None: it does not know this link."""
    nvls_bytes_per_s: float | None = None
    alltoall_bytes_per_s: float | None = None
    error_fraction: float = GIVEN_ERROR_FRACTION
    contention_units: int | None = None
    curve: Curve | None = None
    curve_factor: float | None = None
    """Time on the wire over that of the curve, where it is of a relative; None: of this link."""
    curve_error_fraction: float | None = None

    @property
    def is_infinite(self) -> bool:
        """Whether everything on it takes no time at all."""
        return self.algorithm == "infinite"


INFINITE = LinkLevel(
    text="infinite",
    algorithm="infinite",
    bytes_per_s=math.inf,
    pair_bytes_per_s=math.inf,
    hop_s=0.0,
    error_fraction=0.0,
    contention_units=0,
)


def preset_wire(name: str) -> LinkLevel:
    """Return the preset `name`; what it does not state takes the defaults of this module."""
    row = link(name)
    reached = row.effective_bytes_per_s
    if reached is None:
        reached = DEFAULT_REACHED_FRACTION * row.bytes_per_s
    pair = row.pair_effective_bytes_per_s
    if pair is None:
        pair = row.pair_bytes_per_s * reached / row.bytes_per_s
    error = row.error_fraction
    return LinkLevel(
        text=row.id,
        algorithm="mesh" if row.topology == "mesh" else row.algorithm,
        bytes_per_s=reached,
        pair_bytes_per_s=pair,
        hop_s=DEFAULT_HOP_S if row.hop_latency_s is None else row.hop_latency_s,
        base_s=DEFAULT_BASE_S if row.base_latency_s is None else row.base_latency_s,
        has_ramp=True,
        tuner=row.tuner,
        nvls_bytes_per_s=row.nvls_bytes_per_s,
        alltoall_bytes_per_s=row.alltoall_bytes_per_s,
        error_fraction=DEFAULT_ERROR_FRACTION[row.confidence] if error is None else error,
        contention_units=row.contention_units,
        curve=None if row.curve is None else load_curve(row.curve),
        curve_factor=row.curve_factor,
        curve_error_fraction=row.curve_error_fraction,
    )
