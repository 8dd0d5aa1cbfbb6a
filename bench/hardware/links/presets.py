"""Link presets: rates, latencies and what is really reached, as data with sources.

No cost model is here, only what one needs. Everything is per device and one direction; marketing
adds both. `bytes_per_s` is what is specified, `effective_bytes_per_s` what large messages reach;
using the first for the second misleads, up to tenfold on PCIe.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal

from msgspec import field

from bench.core.errors import one_of
from bench.hardware.loader import AboveZero, Citations, Count, Declared, Number, Text, read_document

Topology = Literal["switch", "mesh", "host", "network", "wan"]


class Link(Declared, frozen=True, kw_only=True):
    """One preset. Rates are bytes per second, per device, one direction; None is unknown."""

    id: Text
    name: Text
    topology: Topology
    """switch: any pair gets the full rate; mesh: a pair gets one link; host: through PCIe roots;
    network: an adapter per device; wan: between sites."""
    algorithm: Literal["ring", "tree"]
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

    def __post_init__(self) -> None:
        if self.curve is None and (self.curve_factor, self.curve_error_fraction) != (None, None):
            raise ValueError("curve: missing, but its factor or error is given")
        if self.pair_bytes_per_s > self.bytes_per_s:
            raise ValueError("pair_bytes_per_s: exceeds what all links of a device carry")
        if (self.effective_bytes_per_s or 0.0) > self.bytes_per_s:
            raise ValueError("effective_bytes_per_s: exceeds what is specified")


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
