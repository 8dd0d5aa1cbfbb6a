"""Link presets: rates, latencies and what is really reached, as data with sources.

No cost model is here, only what one needs. Everything is per device and one direction; marketing
adds both. `bytes_per_s` is what is specified, `effective_bytes_per_s` what large messages reach;
using the first for the second misleads, up to tenfold on PCIe.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

from bench.core.errors import one_of
from bench.hardware.loader import Row, load_rows, read_document
from bench.hardware.sources import load_sources, take_sources

Topology = Literal["switch", "mesh", "host", "network", "wan"]
TOPOLOGIES = ("switch", "mesh", "host", "network", "wan")
ALGORITHMS = ("ring", "tree")
TUNERS = ("volta", "ampere", "hopper", "blackwell", "pci", "net")


@dataclass(frozen=True, kw_only=True)
class Link:
    """One preset. Rates are bytes per second, per device, one direction; None is unknown."""

    id: str
    name: str
    topology: Topology
    """switch: any pair gets the full rate; mesh: a pair gets one link; host: through PCIe roots;
    network: an adapter per device; wan: between sites."""
    algorithm: str
    bytes_per_s: float
    pair_bytes_per_s: float
    effective_bytes_per_s: float | None
    """Bus bandwidth of a large ring all-reduce."""
    pair_effective_bytes_per_s: float | None
    nvls_bytes_per_s: float | None
    """Bus bandwidth where the switch adds; not a rate of the wire."""
    alltoall_bytes_per_s: float | None
    is_derived: bool
    """Whether the effective rate was computed from a relative instead of measured."""
    hop_latency_s: float | None
    base_latency_s: float | None
    error_fraction: float | None
    """Mean error of a formula with these constants on published measurements."""
    tuner: str | None
    """Whose constants in NCCL's tuner apply: one of `TUNERS`; None: it does not know this link."""
    curve: str | None
    """Measured table of this link or of a relative, a file in curves/ without .csv."""
    curve_factor: float | None
    """None: the curve is of this link. Else time on the wire over that of the relative."""
    curve_error_fraction: float | None
    contention_units: int | None
    """Multiprocessors that communication keeps busy: judgement; None where nothing is known."""
    confidence: Literal["high", "medium", "low"]
    note: str | None
    sources: tuple[str, ...]


def _build_link(row: Row, *, sources: dict[str, str]) -> Link:
    rate, pair = row.number("bytes_per_s", required=True), row.number("pair_bytes_per_s")
    assert rate is not None
    link = Link(
        id=row.need_text("id"),
        name=row.need_text("name"),
        topology=cast(Topology, row.choice("topology", allowed=TOPOLOGIES)),
        algorithm=row.choice("algorithm", allowed=ALGORITHMS),
        bytes_per_s=rate,
        pair_bytes_per_s=rate if pair is None else pair,
        effective_bytes_per_s=row.number("effective_bytes_per_s"),
        pair_effective_bytes_per_s=row.number("pair_effective_bytes_per_s"),
        nvls_bytes_per_s=row.number("nvls_bytes_per_s"),
        alltoall_bytes_per_s=row.number("alltoall_bytes_per_s"),
        is_derived=bool(row.flag("derived")),
        hop_latency_s=row.number("hop_latency_s"),
        base_latency_s=row.number("base_latency_s"),
        error_fraction=row.number("error_fraction"),
        tuner=row.text("tuner"),
        curve=row.text("curve"),
        curve_factor=row.number("curve_factor"),
        curve_error_fraction=row.number("curve_error_fraction"),
        contention_units=row.count("contention_units"),
        confidence=cast(
            Literal["high", "medium", "low"],
            row.choice("confidence", allowed=("high", "medium", "low")),
        ),
        note=row.text("note"),
        sources=take_sources(row, sources=sources, key="sources"),
    )
    if link.tuner is not None and link.tuner not in TUNERS:
        raise row.complain("tuner", f"{link.tuner!r} is not one of {', '.join(TUNERS)}")
    if link.curve is None and (link.curve_factor, link.curve_error_fraction) != (None, None):
        raise row.complain("curve", "missing, but its factor or error is given")
    if rate == 0:
        raise row.complain("bytes_per_s", "a link without any rate is no link")
    if link.pair_bytes_per_s > rate:
        raise row.complain("pair_bytes_per_s", "exceeds what all links of a device carry")
    if link.effective_bytes_per_s is not None and link.effective_bytes_per_s > rate:
        raise row.complain("effective_bytes_per_s", "exceeds what is specified")
    return link


def parse_links(document: Row) -> tuple[Link, ...]:
    """Build the presets from a parsed document."""
    sources = load_sources(document)
    links = load_rows(document.rows("links"), build=lambda row: _build_link(row, sources=sources))
    document.finish()
    return links


@cache
def load_links() -> tuple[Link, ...]:
    """All presets, in the order of the file."""
    return parse_links(read_document(Path(__file__).with_name("links.yaml")))


def link(name: str) -> Link:
    """Return one preset by id; a wrong id is answered with the nearest."""
    links = {row.id: row for row in load_links()}
    if name not in links:
        raise one_of("link", name, list(links))
    return links[name]
