"""Building the catalogue of chips and systems from `chips.yaml`, strictly.

An unknown key, a wrong type or an unlisted source is an error that names row and key. Figures that
two sources dispute are noted in the row, not averaged. What a chip would achieve is not here;
derates are only those that somebody measured.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

from bench.core.nouns import Chip, Scalar
from bench.hardware.loader import Row, load_rows, read_document
from bench.hardware.sources import load_sources, take_sources

PEAK_DTYPES = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")
KINDS = ("gpu", "npu", "cpu", "neuromorphic")
DERATES = ("gemm", "memory", "p2p", "all_reduce")
CONFIDENCE = ("high", "medium", "low")
_RATES = (
    "fp64_matrix_flops_per_s",
    "fp32_matrix_flops_per_s",
    "vector_fp32_flops_per_s",
    "int8_vector_ops_per_s",
    "fp4_flops_per_s",
    "fp16_accumulate_fp16_flops_per_s",
    "fp8_accumulate_fp16_flops_per_s",
)


@dataclass(frozen=True, kw_only=True)
class System:
    """A named machine or cluster made of catalogue chips."""

    id: str
    name: str
    chips: tuple[str, ...]
    """Chip ids; several where a system was sold with one or the other, none where unknown."""
    num_chips: int | None
    peak_dtype: str | None
    peak_per_s: float | None
    network: str | None
    network_bytes_per_s_per_node: float | None
    """One direction, all adapters of one node together."""
    named_in: tuple[str, ...]
    note: str | None
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Everything in `chips.yaml`."""

    chips: tuple[Chip, ...]
    device_names: dict[str, tuple[str, ...]]
    """Patterns of driver names by chip id."""
    systems: tuple[System, ...]


def _facts(row: Row, *, memory: Row) -> dict[str, Scalar]:
    """Everything that is not a field of `Chip`, flat, by name with unit; absent stays absent."""
    torch, link = row.child("torch"), row.child("link", required=True)
    host, units = row.child("host_link"), row.child("units")
    facts: dict[str, Scalar] = {
        "form_factor": row.need_text("form_factor"),
        "release_year": row.count("release_year", required=True),
        "process_nm": row.number("process_nm"),
        "torch_stack": torch.text("stack"),
        "torch_device": torch.text("device"),
        "torch_devices": row.count("torch_devices", required=True),
        "dies": row.count("dies"),
        **{name: row.number(name) for name in _RATES},
        "memory_type": memory.text("type"),
        "l2_bytes": memory.number("l2_bytes"),
        "on_chip_bytes": memory.number("on_chip_bytes"),
        "link_name": link.text("name"),
        "link_topology": link.need_text("topology"),
        "link_bytes_per_s": link.number("bytes_per_s"),
        "link_pair_bytes_per_s": link.number("pair_bytes_per_s"),
        "host_pcie_gen": host.count("pcie_gen"),
        "host_lanes": host.count("lanes"),
        "host_bytes_per_s": host.number("bytes_per_s"),
        "compute_units": units.count("count"),
        "compute_unit_kind": units.text("kind"),
        "cuda_cores": units.count("cuda_cores"),
        "tensor_cores": units.count("tensor_cores"),
        "clock_hz": row.number("clock_hz"),
        "die_area_mm2": row.number("die_area_mm2"),
        "named_in": " ".join(row.texts("named_in")) or None,
        "note": row.text("note"),
    }
    for part in (torch, link, host, units):
        part.finish()
    return {name: value for name, value in facts.items() if value is not None}


def _derates(row: Row, *, sources: dict[str, str]) -> tuple[dict[str, float], dict[str, Scalar]]:
    """Fractions by kind, and who measured each as facts."""
    fractions: dict[str, float] = {}
    facts: dict[str, Scalar] = {}
    derates = row.child("derates")
    for kind in DERATES:
        derate = derates.child(kind)
        if not derate.keys():
            continue
        fraction = derate.number("fraction", required=True)
        assert fraction is not None
        if not 0 < fraction <= 1:
            raise derate.complain("fraction", f"{fraction} is not between 0 and 1")
        fractions[kind] = fraction
        facts[f"derate_{kind}_source"] = take_sources(derate, sources=sources, key="source")[0]
        derate.finish()
    derates.finish()
    return fractions, facts


def _build_chip(row: Row, *, sources: dict[str, str]) -> Chip:
    peaks = row.child("dense_per_s")
    rates = {dtype: peaks.number(dtype) for dtype in PEAK_DTYPES}
    peaks.finish()
    derates, derate_facts = _derates(row, sources=sources)
    memory = row.child("memory")
    facts = _facts(row, memory=memory)
    chip = Chip(
        id=row.need_text("id"),
        name=row.need_text("name"),
        vendor=row.need_text("vendor"),
        kind=row.choice("kind", allowed=KINDS),
        peak_per_s={dtype: rate for dtype, rate in rates.items() if rate is not None},
        memory_bytes=memory.number("bytes"),
        memory_bytes_per_s=memory.number("bytes_per_s"),
        tdp_w=row.number("tdp_w"),
        confidence=cast(
            Literal["high", "medium", "low"], row.choice("confidence", allowed=CONFIDENCE)
        ),
        sources=take_sources(row, sources=sources, key="sources"),
        facts={**facts, **derate_facts},
        derates=derates,
    )
    row.texts("device_names")
    memory.finish()
    return chip


def _build_system(row: Row, *, sources: dict[str, str], chip_ids: set[str]) -> System:
    peak = row.child("peak")
    system = System(
        id=row.need_text("id"),
        name=row.need_text("name"),
        chips=row.texts("chips", required=True),
        num_chips=row.count("num_chips"),
        peak_dtype=peak.text("dtype"),
        peak_per_s=peak.number("per_s"),
        network=row.text("network"),
        network_bytes_per_s_per_node=row.number("network_bytes_per_s_per_node"),
        named_in=row.texts("named_in"),
        note=row.text("note"),
        sources=take_sources(row, sources=sources, key="sources"),
    )
    peak.finish()
    for name in system.chips:
        if name not in chip_ids:
            raise row.complain("chips", f"{name!r} is not a chip of this catalogue")
    return system


def parse_catalogue(document: Row) -> Catalogue:
    """Build the catalogue from a parsed document."""
    sources = load_sources(document)
    rows = document.rows("chips")
    chips = load_rows(rows, build=lambda row: _build_chip(row, sources=sources))
    ids = {chip.id for chip in chips}
    systems = load_rows(
        document.rows("systems"),
        build=lambda row: _build_system(row, sources=sources, chip_ids=ids),
    )
    document.finish()
    names = {row.need_text("id"): row.texts("device_names") for row in rows}
    return Catalogue(chips=chips, device_names=names, systems=systems)


@cache
def load_catalogue() -> Catalogue:
    """Return the catalogue that comes with the harness, read once per process."""
    return parse_catalogue(read_document(Path(__file__).with_name("chips.yaml")))
