"""What `bench list chips` prints: the catalogue as a table, or one chip or system as a card.

Blank is unknown. Rates are dense and links are one direction; the column heads say so. A card ends
with the sources, because a figure without one is a rumour.
"""

from __future__ import annotations

from msgspec.structs import asdict

from bench.cli.output import print_card, print_json, print_note, text_table
from bench.core.errors import NothingMatchedError, UsageError
from bench.core.nouns import Chip, Scalar
from bench.core.units import format_bytes, format_number, format_si
from bench.hardware.chips import System, chip, load_systems
from bench.hardware.export_rules import VERDICT_WORDS, export_status, load_rules
from bench.hardware.query import chip_fields, select

_UNITS = {
    "_flops_per_s": "FLOP/s",
    "_ops_per_s": "OP/s",
    "_bytes_per_s": "B/s",
    "_per_s": "FLOP/s",
    "_bytes": "B",
    "_w": "W",
    "_hz": "Hz",
}
_INTEGERS = ("release_year", "torch_devices", "dies", "host_pcie_gen", "host_lanes")
_HEADER = (
    "chip",
    "year",
    *("bf16\nTF/s", "fp16\nTF/s", "fp32\nTF/s", "int8\nTO/s"),
    *("mem\nGB", "mem\nGB/s", "link\nGB/s", "pair\nGB/s", "W", "trust"),
)


def _scaled(value: Scalar, *, by: float) -> str:
    """Value in a larger unit with no digits invented or lost; blank when unknown."""
    return f"{float(value) / by:.6g}" if isinstance(value, int | float) else ""


def _cells(row: Chip) -> list[str]:
    return [
        row.id,
        str(row.facts.get("release_year", "")),
        *(_scaled(row.peak_per_s.get(name), by=1e12) for name in ("bf16", "fp16", "fp32", "int8")),
        _scaled(row.memory_bytes, by=1e9),
        _scaled(row.memory_bytes_per_s, by=1e9),
        _scaled(row.facts.get("link_bytes_per_s"), by=1e9),
        _scaled(row.facts.get("link_pair_bytes_per_s"), by=1e9),
        _scaled(row.tdp_w, by=1),
        row.confidence,
    ]


def _with_unit(name: str, value: Scalar) -> str:
    """Print one fact for people, in the unit that its name ends with."""
    if isinstance(value, str | bool) or value is None or name in _INTEGERS:
        return str(value)
    if name in ("l2_bytes", "on_chip_bytes"):
        return format_bytes(value)
    if name == "int8_per_s":
        return format_si(value, "OP/s")
    for suffix, unit in _UNITS.items():
        if name.endswith(suffix):
            return format_si(value, unit)
    return format_number(value)


def _chip_facts(row: Chip) -> dict[str, str]:
    facts = {
        name: _with_unit(name, value)
        for name, value in chip_fields(row).items()
        if value is not None and name not in ("name", "id") and not name.startswith("caught_")
    }
    status = export_status(row)
    for rule in load_rules():
        caught = status[rule.id]
        why = ": turns on a figure that is not public" if caught is None else ""
        facts[f"export: {rule.title}"] = f"{VERDICT_WORDS[caught]}{why}"
    if isinstance(note := row.facts.get("note"), str):
        facts["note"] = note
    return facts


def _document(row: Chip) -> dict[str, object]:
    rest = {"export": export_status(row), "note": row.facts.get("note")}
    return {**chip_fields(row), **rest, "sources": list(row.sources)}


def _system_facts(system: System) -> dict[str, str]:
    num_chips, node_rate = system.num_chips, system.network_bytes_per_s_per_node
    facts: dict[str, Scalar] = {
        "chips": " or ".join(system.chips) or None,
        "num_chips": None if num_chips is None else str(num_chips),
        f"{system.peak_dtype}_per_s": system.peak_per_s,
        "network": system.network,
        "network_bytes_per_s_per_node": node_rate and format_si(node_rate, "B/s"),
        "named_in": " ".join(system.named_in) or None,
        "note": system.note,
    }
    return {name: _with_unit(name, value) for name, value in facts.items() if value is not None}


def _render_one(name: str, *, as_json: bool) -> None:
    system = next((row for row in load_systems() if row.id == name), None)
    row = system or chip(name)
    if as_json:
        print_json(_document(row) if isinstance(row, Chip) else asdict(row))
    elif isinstance(row, Chip):
        print_card(f"{row.name}  ({row.id})", _chip_facts(row), sources=row.sources)
    else:
        print_card(row.name, _system_facts(row), sources=row.sources)


def render_chips(*, where: str | None, sort: str | None, name: str | None, as_json: bool) -> None:
    """Print the catalogue, what `where` leaves of it, or the card of one chip or system."""
    if name is not None:
        if where is not None or sort is not None:
            raise UsageError("--where and --sort choose among chips; leave them out with a NAME")
        _render_one(name, as_json=as_json)
        return
    selection = select(where, sort=sort)
    if as_json:
        print_json(
            {
                "chips": [_document(row) for row in selection.chips],
                "num_left_out": selection.num_left_out,
                "unknown_fields": selection.unknown,
                "systems": [asdict(row) for row in load_systems()] if not where else [],
            }
        )
        return
    if not selection.chips:
        left_out = f" ({selection.note})" if selection.note else ""
        raise NothingMatchedError(f"no chip matches {where!r}{left_out}")
    print(text_table(_HEADER, [*map(_cells, selection.chips)], left=("chip", "trust")))
    if selection.note:
        print_note(selection.note)
    if where is None:
        print_note(f"systems: {', '.join(row.id for row in load_systems())}")
    print_note(
        "blank: unknown; rates are dense, in tera-operations per second; link: all links of a "
        "chip, pair: between two chips, both one way; "
        "`bench list chips NAME` shows a card with sources"
    )
