"""What `bench list links` prints: the presets as a table, or one of them as a card."""

from __future__ import annotations

from msgspec.structs import asdict

from bench.cli.output import print_card, print_json, print_note, text_table
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
    units = row.contention_units
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
        "" if units is None else str(units),
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
