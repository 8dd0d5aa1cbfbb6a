"""What `bench list links` prints: the presets as a table, or one of them as a card."""

from __future__ import annotations

from msgspec.structs import asdict

from bench.cli.output import print_json, print_note, result_console
from bench.hardware.links import Link, link, load_links


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


def _print_table() -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in ("link", "topology"):
        table.add_column(head, no_wrap=True)
    for head in ("spec\nGB/s", "pair\nGB/s", "ring reached\nGB/s", "in-switch\nGB/s", "hop\nus"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for head in ("error\nof it", "busy\nSMs"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("trust", no_wrap=True)
    for row in load_links():
        table.add_row(*_cells(row))
    result_console().print(table)
    print_note("per device, one direction; blank: not published; * derived, not measured")


def _text(name: str, value: object) -> str:
    if isinstance(value, float):
        if name.endswith("bytes_per_s"):
            return f"{_giga(value)} GB/s"
        if name.endswith("latency_s"):
            return f"{_micro(value)} us"
        if name.endswith("error_fraction"):
            return _percent(value)
    return str(value)


def _print_card(row: Link) -> None:
    from rich.markup import escape

    console = result_console()
    console.print(f"[bold]{escape(row.name)}[/bold]  ({row.id})")
    facts = {"method": method_of(row), **asdict(row)}
    for name, value in facts.items():
        if value is None or name in ("id", "name", "sources"):
            continue
        console.print(f"  {name:28} {escape(_text(name, value))}")
    console.print("Sources")
    for source in row.sources:
        console.print(f"  {escape(source)}", soft_wrap=True)


def render_links(*, name: str | None, as_json: bool) -> None:
    """Print all link presets, or one of them with its sources."""
    if name is not None:
        row = link(name)
        if as_json:
            print_json({"method": method_of(row), **asdict(row)})
        else:
            _print_card(row)
    elif as_json:
        print_json([{"method": method_of(row), **asdict(row)} for row in load_links()])
    else:
        _print_table()
