"""What `bench list links` prints: the presets as a table, one as a card, or a link's score.

A score says how far the model of a link is from a measured table (`--check`).
"""

from __future__ import annotations

import dataclasses

from msgspec.structs import asdict

from bench.cli.output import print_card, print_json, print_note, text_table
from bench.core.paths import user_path
from bench.hardware.links.presets import Link, link, load_links

_WORDS = ("link", "topology", "method", "trust")
_HEADER = (
    *("link", "topology", "spec\nGB/s", "pair\nGB/s", "ring\nGB/s", "in-\nswitch\nGB/s"),
    *("hop\nus", "method", "error\nof it", "SMs", "trust"),
)


def _giga(value: float | None) -> str:
    return "" if value is None else f"{value / 1e9:.6g}"


def _micro(value: float | None) -> str:
    return "" if value is None else f"{value * 1e6:.6g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def method_of(row: Link) -> str:
    """How its times come about: own curve, a relative's curve, NCCL's formula, alpha-beta."""
    if row.curve is not None:
        return "curve" if row.curve_factor is None else "scaled-curve"
    return "alpha-beta" if row.tuner is None else "tuner"


def _cells(row: Link) -> list[str]:
    return [
        row.id,
        row.topology,
        _giga(row.bytes_per_s),
        _giga(row.pair_bytes_per_s),
        _giga(row.effective_bytes_per_s) + ("*" if row.is_derived else ""),
        _giga(row.nvls_bytes_per_s),
        _micro(row.hop_latency_s),
        method_of(row),
        _percent(row.error_fraction if row.curve is None else row.curve_error_fraction),
        "" if row.contention_units is None else str(row.contention_units),
        row.confidence,
    ]


def _text(name: str, value: object) -> str:
    if isinstance(value, float):
        if name.endswith("bytes_per_s"):
            return f"{_giga(value)} GB/s"
        if name.endswith("latency_s"):
            return f"{_micro(value)} us"
        if name.endswith("error_fraction"):
            return _percent(value)
    return str(value)


def render_links(*, name: str | None, as_json: bool) -> None:
    """Print all link presets, or one of them with its sources."""
    chosen = load_links() if name is None else [link(name)]
    documents = [{"method": method_of(row), **asdict(row)} for row in chosen]
    if as_json:
        print_json(documents if name is None else documents[0])
    elif name is None:
        print(text_table(_HEADER, [*map(_cells, chosen)], left=_WORDS))
        print_note(
            "per device, one direction; ring: reached, * derived; SMs: busy; blank: not published"
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
                "methods": list(check.methods),
                "leave_one_size_out": left_out,
                "is_rated": check.is_rated,
                "small_to_bytes": link_check.SMALL_BYTES,
                "medium_to_bytes": link_check.MEDIUM_BYTES,
                "num_points": check.overall.num_points,
                "mean_abs_error": check.overall.mean_abs_error,
                "scores": [dataclasses.asdict(score) for score in check.scores],
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
    if not check.is_rated:
        print(
            "unrated: a formula cannot know what PCI Express reaches on a given board; measure it"
        )
    print_note("mean of |predicted / measured - 1|; bias below zero: the model is too fast")
