"""What `bench list links` prints: the presets as a table, or one of them as a card."""

from __future__ import annotations

from dataclasses import asdict

from bench.cli.output import print_json, print_note, result_console
from bench.hardware.links import Link, link, load_links


def _giga(value: float | None) -> str:
    return "" if value is None else f"{value / 1e9:.6g}"


def _micro(value: float | None) -> str:
    return "" if value is None else f"{value * 1e6:.6g}"


def _cells(row: Link) -> list[str]:
    return [
        row.id,
        row.topology,
        _giga(row.bytes_per_s),
        _giga(row.pair_bytes_per_s),
        _giga(row.effective_bytes_per_s) + (" derived" if row.is_derived else ""),
        _giga(row.nvls_bytes_per_s),
        _micro(row.hop_latency_s),
        "" if row.error_fraction is None else f"{row.error_fraction:.0%}",
        row.confidence,
    ]


def _print_table() -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("link", "topology"):
        table.add_column(head, no_wrap=True)
    for head in ("spec\nGB/s", "pair\nGB/s", "ring reached\nGB/s", "in-switch\nGB/s", "hop\nus"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("formula\nerror", justify="right", no_wrap=True)
    table.add_column("trust", no_wrap=True)
    for row in load_links():
        table.add_row(*_cells(row))
    result_console().print(table)
    print_note("per device, one direction; blank: not published")


def _print_card(row: Link) -> None:
    from rich.markup import escape

    console = result_console()
    console.print(f"[bold]{escape(row.name)}[/bold]  ({row.id})")
    for name, value in asdict(row).items():
        if value is None or name in ("id", "name", "sources"):
            continue
        unit = name.removesuffix("_bytes_per_s")
        text = f"{_giga(value)} GB/s" if name != unit or name == "bytes_per_s" else str(value)
        console.print(f"  {name:28} {escape(text)}")
    console.print("Sources")
    for source in row.sources:
        console.print(f"  {escape(source)}", soft_wrap=True)


def render_links(*, name: str | None, as_json: bool) -> None:
    """Print all link presets, or one of them with its sources."""
    if name is not None:
        row = link(name)
        if as_json:
            print_json(asdict(row))
        else:
            _print_card(row)
    elif as_json:
        print_json([asdict(row) for row in load_links()])
    else:
        _print_table()
