"""Link presets as data with sources, and what a cost model needs of any link.

Everything is per device and one direction; marketing adds both. `bytes_per_s` of a preset is what
is specified, `effective_bytes_per_s` what large messages reach; using the first for the second
misleads, up to tenfold on PCIe. A preset, a text such as `bw=25GB/s,latency=5us` and a link file
become a `LinkLevel`. Where a preset does not say what it reaches or how long a step takes, the
defaults here stand in; they are judgements and the error band of such a link is wide.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from bench.core.errors import one_of
from bench.hardware.links.curves import Curve, load_curve
from bench.hardware.loader import AboveZero, Citations, Count, Declared, Number, Text, read_document

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
    """ring, tree, fastest (of the two), mesh (one link per pair, all used at once), or infinite."""
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
    largest_domain: int | None = None
    """Most devices that it joins; None: any number, or not known."""
    network: str | None = None
    """What joins such nodes as a rule, an adapter per device."""

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


class Link(Declared, frozen=True, kw_only=True):
    """One preset. Rates are bytes per second, per device, one direction; None is unknown."""

    id: Text
    name: Text
    topology: Literal["switch", "mesh", "host", "network", "wan"]
    """switch: any pair gets the full rate; mesh: a pair gets one link; host: through PCIe roots;
    network: an adapter per device; wan: between sites."""
    largest_domain: Annotated[int, Meta(ge=2)] | None = None
    """Most devices that it joins in any system sold; None: any number."""
    network: Text | None = None
    """Preset that joins such nodes as a rule."""
    bytes_per_s: AboveZero
    pair_bytes_per_s: Number
    """What two devices alone can use."""
    effective_bytes_per_s: Number | None = None
    """Bus bandwidth of a large ring all-reduce."""
    pair_effective_bytes_per_s: Number | None = None
    nvls_bytes_per_s: Number | None = None
    """Bus bandwidth where the switch adds; not a rate of the wire."""
    alltoall_bytes_per_s: Number | None = None
    is_derived: bool = field(name="derived", default=False)
    """Whether the effective rate was computed from a relative instead of measured."""
    hop_latency_s: Number | None = None
    base_latency_s: Number | None = None
    error_fraction: Number | None = None
    """Mean error of a formula with these constants on published measurements."""
    tuner: Literal["volta", "ampere", "hopper", "blackwell", "pci", "net"] | None = None
    """Whose constants in NCCL's tuner apply; None: it does not know this link."""
    curve: Text | None = None
    """Measured table of this link or of a relative, a file in tables/ without .csv."""
    curve_factor: Number | None = None
    """None: the curve is of this link. Else time on the wire over that of the relative."""
    curve_error_fraction: Number | None = None
    contention_units: Count | None = None
    """Multiprocessors that communication keeps busy: judgement; None where nothing is known."""
    confidence: Literal["high", "medium", "low"]
    note: Text | None = None
    sources: Citations

    def level(self) -> LinkLevel:
        """Build what a cost model needs; what is not stated takes the defaults of this module."""
        reached = self.effective_bytes_per_s or DEFAULT_REACHED_FRACTION * self.bytes_per_s
        pair = self.pair_effective_bytes_per_s or self.pair_bytes_per_s * reached / self.bytes_per_s
        error = self.error_fraction
        return LinkLevel(
            text=self.id,
            algorithm="mesh" if self.topology == "mesh" else "fastest",
            bytes_per_s=reached,
            pair_bytes_per_s=pair,
            hop_s=DEFAULT_HOP_S if self.hop_latency_s is None else self.hop_latency_s,
            base_s=DEFAULT_BASE_S if self.base_latency_s is None else self.base_latency_s,
            has_ramp=True,
            tuner=self.tuner,
            nvls_bytes_per_s=self.nvls_bytes_per_s,
            alltoall_bytes_per_s=self.alltoall_bytes_per_s,
            error_fraction=DEFAULT_ERROR_FRACTION[self.confidence] if error is None else error,
            contention_units=self.contention_units,
            curve=None if self.curve is None else load_curve(self.curve),
            curve_factor=self.curve_factor,
            curve_error_fraction=self.curve_error_fraction,
            largest_domain=self.largest_domain,
            network=self.network,
        )


class LinkPresets(Declared, frozen=True, kw_only=True):
    """Everything in `links.yaml`."""

    sources: dict[str, Any]
    links: tuple[Link, ...]


@cache
def load_links() -> tuple[Link, ...]:
    """All presets, in the order of the file."""
    return read_document(Path(__file__).with_name("links.yaml"), into=LinkPresets).links


def link(name: str) -> Link:
    """Return one preset by id; a wrong id is answered with the nearest."""
    links = {row.id: row for row in load_links()}
    if name not in links:
        raise one_of("link", name, list(links))
    return links[name]
