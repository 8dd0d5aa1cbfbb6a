"""`bench list`: workloads, chips and links, without importing torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from bench.cli.options import AsJson
from bench.cli.output import print_json, text_table
from bench.core.errors import UsageError, one_of
from bench.core.units import format_bytes, format_number, format_si

if TYPE_CHECKING:
    from bench.discovery import Found
    from bench.workload import Phase

KINDS = ("workloads", "chips", "links", "recipes")


def list_(
    kind: Annotated[str, Argument(help="workloads, chips, links or recipes")] = "workloads",
    name: Annotated[str | None, Argument(help="one of them, for all that is known")] = None,
    workload: Annotated[
        Path | None, Option("--workload", "-w", help="a workload file to list")
    ] = None,
    where: Annotated[
        str | None, Option(help="chips: such as 'memory_bytes>=48e9 and tdp_w<=350'")
    ] = None,
    sort: Annotated[str | None, Option(help="chips: field to sort by; -field descends")] = None,
    check: Annotated[
        str | None, Option(help="links: score NAME against this CSV of measured collectives")
    ] = None,
    formula: Annotated[
        bool, Option("--formula", help="with --check: without the measured curve")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the workloads with their sizes and costs, the catalogue of chips, or the links."""
    if kind not in KINDS:
        raise one_of("list", kind, list(KINDS))
    if (check is not None or formula) and (kind != "links" or name is None or check is None):
        raise UsageError("--check and --formula score one link: list links NAME --check table.csv")
    if (where or sort) and kind != "chips":
        raise UsageError("--where and --sort are for `bench list chips`")
    if kind == "workloads":
        _list_workloads(name, path=workload, as_json=as_json)
        return
    if kind == "recipes":
        _list_recipes(name, as_json=as_json)
        return
    from bench.cli.listing import catalogue

    if kind == "chips":
        catalogue.render_chips(where=where, sort=sort, name=name, as_json=as_json)
    elif name is not None and check is not None:
        catalogue.render_check(name=name, table=check, use_curves=not formula, as_json=as_json)
    else:
        catalogue.render_links(name=name, as_json=as_json)


def _list_recipes(name: str | None, *, as_json: bool) -> None:
    from bench.run.recipes import RECIPES, recipe

    heads = ("recipe", "summary", "command", "note")
    chosen = RECIPES if name is None else (recipe(name),)
    cells = [(one.name, one.summary, one.command, one.note or None) for one in chosen]
    if as_json:
        print_json([dict(zip(heads, row, strict=True)) for row in cells])
        return
    for title, summary, command, note in cells:
        print(f"{title}: {summary}{f'; {note}' if note else ''}\n  {command}")


def _list_workloads(name: str | None, *, path: Path | None, as_json: bool) -> None:
    from bench import discovery
    from bench.run.planning.selection import select

    names = (str(path),) if path else (name,) if name else tuple(discovery.names())
    selected = sorted(select(names, is_list=True), key=lambda one: _place(one[0]))
    entries = [
        _entry(found, phase, size=size)
        for found, phase in selected
        for size in found.cls.sizes or ("",)
    ]
    if as_json:
        print_json(entries)
        return
    rows = []
    for domain, of_domain in itertools.groupby(entries, key=lambda one: one["domain"]):
        rows += [(domain, *[""] * 7), *map(_cells, of_domain)]
    figures = ("parameters", "FLOP/item", "memory, fp32")
    header = ("workload", "size", "batch", "item", *figures, "runs here")
    print(text_table(header, rows, left=("workload", "size", "item", "runs here")))
    for found in dict.fromkeys(found for found, _ in selected):
        takes = f"; --data: {found.cls.accepts_data}" if found.cls.accepts_data else ""
        print(f"{found.name}: {found.cls.summary}{takes}")


def _place(found: Found) -> int:
    """Where its domain stands among the domains; a domain of one's own comes last."""
    from bench.workload import DOMAINS

    domain = found.cls.domain
    return DOMAINS.index(domain) if domain in DOMAINS else len(DOMAINS)


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"  {one['workload']}",
        one["size"] or "-",
        str(one["batch"]),
        one["item"],
        format_number(one["num_parameters"]),
        "" if one["flops_per_item"] is None else format_si(one["flops_per_item"], "FLOP"),
        format_bytes(one["memory_bytes"]),
        one["runs_here"],
    )


def _entry(found: Found, phase: Phase, *, size: str) -> dict[str, Any]:
    """Describe a phase at one size, by formula; memory in fp32."""
    from bench import discovery

    workload = discovery.instance(found, size=size or None, overrides={})
    memory_bytes = workload.memory_bytes(phase, dtype="fp32")
    return {
        "workload": f"{found.name}-{phase.name}",
        "size": size,
        "batch": workload.batch_size(phase),
        "item": phase.item,
        "num_parameters": workload.num_parameters(),
        "flops_per_item": workload.flops_per_item(phase),
        "memory_bytes": memory_bytes,
        "runs_here": f"no: {found.lacking}" if found.lacking else _runs_here(size, memory_bytes),
        "domain": found.cls.domain,
        "is_selftest": found.cls.is_selftest,
        "params": discovery.parameters(workload),
    }


def _runs_here(size: str, memory_bytes: int) -> str:
    """Say where it fits: accelerators that NVML sees, and the CPU. torch may see more."""
    from bench.run.planning.selection import CPU_SIZES, MARGIN_FRAC

    accelerators, free_bytes = _memories()
    for name, device_free_bytes in accelerators:
        if memory_bytes <= MARGIN_FRAC * device_free_bytes:
            return f"yes: {name}"
    if memory_bytes > MARGIN_FRAC * free_bytes:
        return f"no: the CPU has {format_bytes(free_bytes)} free"
    return "CPU: slowly" if size and size not in CPU_SIZES else "yes: CPU"


@cache
def _memories() -> tuple[list[tuple[str, int]], int]:
    """Free memory of each accelerator by name, and of the host."""
    from bench.devices.host import cpu
    from bench.devices.telemetry.nvml import device_memories

    return device_memories(), cpu.free_memory_bytes()
