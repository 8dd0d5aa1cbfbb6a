"""What `bench list chips` and `bench list links` print: a table, or one chip, system or link.

Blank is unknown. Rates are dense and links are one direction; the column heads say so. A card ends
with the sources, because a figure without one is a rumour. A link's score says how far its model is
from a measured table (`--check`).
"""

from __future__ import annotations

import dataclasses

from msgspec.structs import asdict

from bench.cli.listing.reach_lines import reach_lines
from bench.cli.output import print_card, print_json, print_note, text_table
from bench.core.errors import NothingMatchedError, UsageError
from bench.core.nouns import Chip, Scalar
from bench.core.paths import user_path
from bench.core.units import format_bytes, format_number, format_si
from bench.hardware.chips import System, chip, id_of, load_catalogue
from bench.hardware.links.presets import Link, link, load_links
from bench.hardware.query import VERDICT_WORDS, chip_fields, export_status, load_rules, select

_UNITS = {
    "_flops_per_s": "FLOP/s",
    "_ops_per_s": "OP/s",
    "_bytes_per_s": "B/s",
    "_per_s": "FLOP/s",
    "_bytes": "B",
    "_w": "W",
    "_hz": "Hz",
}
_SAID = ("caught_", "gemm_", "best_gemm_", "memory_low_", "memory_high_", "cache_")
"""Fields that the card has in words."""
_INTEGERS = ("release_year", "torch_devices", "dies", "host_pcie_gen", "host_lanes")
_CHIP_HEADER = (
    "chip",
    "year",
    *("bf16\nTF/s", "fp16\nTF/s", "fp32\nTF/s", "int8\nTO/s"),
    *("mem\nGB", "mem\nGB/s", "link\nGB/s", "pair\nGB/s", "W", "trust"),
)
_LINK_HEADER = (
    *("link", "topology", "joins\nmost", "spec\nGB/s", "pair\nGB/s", "ring\nGB/s"),
    *("in-\nswitch\nGB/s", "hop\nus", "method", "error\nof it", "SMs", "trust"),
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
        if value is not None and name not in ("name", "id") and not name.startswith(_SAID)
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
    reaches = {kind: dataclasses.asdict(one) for kind, one in row.reaches.items()}
    rest = {"reaches": reaches, "export": export_status(row), "note": row.facts.get("note")}
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
    system = next((row for row in load_catalogue().systems if row.id == id_of(name)), None)
    row = system or chip(name)
    if as_json:
        print_json(_document(row) if isinstance(row, Chip) else asdict(row))
    elif isinstance(row, Chip):
        reached = [source for one in row.reaches.values() for source in one.sources]
        print_card(
            f"{row.name}  ({row.id})",
            _chip_facts(row),
            sources=list(dict.fromkeys([*row.sources, *reached])),
            lead=reach_lines(row),
        )
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
                "systems": [asdict(row) for row in load_catalogue().systems] if not where else [],
            }
        )
        return
    if not selection.chips:
        left_out = f" ({selection.note})" if selection.note else ""
        raise NothingMatchedError(f"no chip matches {where!r}{left_out}")
    print(text_table(_CHIP_HEADER, [*map(_cells, selection.chips)], left=("chip", "trust")))
    if selection.note:
        print_note(selection.note)
    if where is None:
        print_note(f"systems: {', '.join(row.id for row in load_catalogue().systems)}")
    print_note(
        "blank: unknown; rates are dense, in tera-operations per second; link: all links of a "
        "chip, pair: between two chips, both one way; "
        "`bench list chips NAME` shows a card with sources"
    )


def method_of(row: Link) -> str:
    """How its times come about: own curve, a relative's curve, NCCL's formula, alpha-beta."""
    if row.curve is not None:
        return "curve" if row.curve_factor is None else "scaled-curve"
    return "alpha-beta" if row.tuner is None else "tuner"


def _link_cells(row: Link) -> list[str]:
    error = row.error_fraction if row.curve is None else row.curve_error_fraction
    return [
        row.id,
        row.topology,
        "" if row.largest_domain is None else str(row.largest_domain),
        _scaled(row.bytes_per_s, by=1e9),
        _scaled(row.pair_bytes_per_s, by=1e9),
        _scaled(row.effective_bytes_per_s, by=1e9) + ("*" if row.is_derived else ""),
        _scaled(row.nvls_bytes_per_s, by=1e9),
        _scaled(row.hop_latency_s, by=1e-6),
        method_of(row),
        "" if error is None else f"{error:.0%}",
        "" if row.contention_units is None else str(row.contention_units),
        row.confidence,
    ]


def _text(name: str, value: object) -> str:
    if isinstance(value, float):
        if name.endswith("bytes_per_s"):
            return f"{_scaled(value, by=1e9)} GB/s"
        if name.endswith("latency_s"):
            return f"{_scaled(value, by=1e-6)} us"
        if name.endswith("error_fraction"):
            return f"{value:.0%}"
    return str(value)


def render_links(*, name: str | None, as_json: bool) -> None:
    """Print all link presets, or one of them with its sources."""
    chosen = load_links() if name is None else [link(name)]
    documents = [{"method": method_of(row), **asdict(row)} for row in chosen]
    if as_json:
        print_json(documents if name is None else documents[0])
    elif name is None:
        left = ("link", "topology", "method", "trust")
        print(text_table(_LINK_HEADER, [*map(_link_cells, chosen)], left=left))
        print_note(
            "per device, one direction; joins most: so many devices, blank: any number; "
            "ring: reached, * derived; SMs: busy; blank: not published"
        )
    else:
        facts = {
            fact: _text(fact, value)
            for fact, value in documents[0].items()
            if value is not None and fact not in ("id", "name", "sources")
        }
        print_card(f"{chosen[0].name}  ({name})", facts, sources=chosen[0].sources)


def render_check(*, name: str, table: str, use_curves: bool, as_json: bool) -> None:
    """Score the link `name` against the CSV at `table` and print the errors."""
    from bench.hardware.links import link_check
    from bench.hardware.links.curves import read_table
    from bench.hardware.links.topology import parse_topology

    topology = parse_topology(name)
    points = read_table(user_path(table, what="table"))
    check = link_check.check_link(points, topology=topology, use_curves=use_curves)
    left_out = any("curve" in method for method in check.methods)
    if as_json:
        print_json(
            {
                "link": check.link,
                "table": table,
                "methods": check.methods,
                "leave_one_size_out": left_out,
                "is_rated": check.is_rated,
                "small_to_bytes": link_check.SMALL_BYTES,
                "medium_to_bytes": link_check.MEDIUM_BYTES,
                "num_points": check.overall.num_points,
                "mean_abs_error": check.overall.mean_abs_error,
                "scores": [dataclasses.asdict(score) for score in check.scores],
                "worst": {**asdict(check.worst), "predicted_s": check.worst_predicted_s},
            }
        )
        return
    scores = {(score.op, score.size_class): score for score in check.scores}
    rows = []
    for op in dict.fromkeys(score.op for score in check.scores):
        sized = [scores.get((op, size)) for size in (*link_check.SIZE_CLASSES, "all")]
        errors = ("" if score is None else f"{score.mean_abs_error:.1%}" for score in sized)
        whole = scores[op, "all"]
        rows.append([op, *errors, f"{whole.mean_error:+.1%}", str(whole.num_points)])
    head = ("op", "<=64 KiB", "<=8 MiB", "larger", "all", "bias", "points")
    print(text_table(head, rows, left=("op",)))
    print(
        f"{check.link}: mean absolute error {check.overall.mean_abs_error:.1%} by "
        f"{', '.join(check.methods)}"
        + ("; each size predicted without its own measurements" if left_out else "")
    )
    print(
        f"furthest off: {link_check.described(check.worst)} measured, "
        f"{check.worst_predicted_s * 1e6:.6g} us predicted"
    )
    if not check.is_rated:
        print(
            "unrated: a formula cannot know what PCI Express reaches on a given board; measure it"
        )
    print_note("mean of |predicted / measured - 1|; bias below zero: the model is too fast")
