"""`bench devices`: what can be measured here, and `bench doctor`: what would spoil it.

Each device with its vendor and software, the dtypes that compute right, what can be sampled, and
its row in the catalogue; then how devices are joined, and which vendor packages could not load.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from bench.cli.options import AsJson
from bench.cli.output import print_grids, print_json
from bench.core.errors import BenchError
from bench.core.nouns import Device
from bench.core.units import format_bytes, format_ranges

if TYPE_CHECKING:
    from bench.devices.host.cpu import CoreKinds
    from bench.devices.telemetry.nvml import PhysicalLink
    from bench.devices.torch.backends import PackageState
    from bench.report.tables.cells import AnyCell

_Entry = dict[str, Any]
"""A device with everything asked about it, as in the JSON document."""


def devices(
    as_json: AsJson = False,
    probe: Annotated[
        bool, Option("--probe/--no-probe", help="try each dtype by computing with it")
    ] = True,
) -> None:
    """Show every device, what works on it and how devices are joined."""
    from bench.devices.host.cpu import allowed_cpu_ids, core_kinds
    from bench.devices.telemetry.nvml import device_links
    from bench.devices.torch.backends import load_packages
    from bench.devices.torch.detect import survey
    from bench.report.tables.grid import Grid

    here = survey()
    problems = list(here.problems)
    entries = [_entry(device, with_probe=probe, problems=problems) for device in here.devices]
    packages = load_packages()
    links = device_links(here.devices)
    kinds = core_kinds(allowed_cpu_ids())
    if as_json:
        print_json(
            {
                "torch": _versions(),
                "devices": entries,
                "links": [asdict(link) for link in links],
                "cores": asdict(kinds),
                "packages": [asdict(package) for package in packages],
                "problems": problems,
            }
        )
        return
    columns: dict[str, Callable[[_Entry], AnyCell]] = {
        "device": lambda one: one["label"],
        "name": lambda one: one["name"],
        "vendor": lambda one: one["vendor"] or "unknown",
        "stack": lambda one: one["stack"] + (f", driver {one['driver']}" if one["driver"] else ""),
        "memory": _memory_text,
        "dtypes": _dtypes_text,
        "telemetry": lambda one: " ".join(one["telemetry"]) or "none",
        "catalogue": _catalogue_text,
    }
    grid = Grid.of(entries, columns, spare=("telemetry",))
    print_grids([grid], lines=_lines(links, kinds=kinds, packages=packages, problems=problems))


def _entry(device: Device, *, with_probe: bool, problems: list[str]) -> _Entry:
    """Ask the driver, the catalogue and the device; what goes wrong is added to `problems`.

    `dtypes` is None where nothing was tried, `chips` are the catalogue rows it may be.
    """
    from bench.devices.telemetry.readers import baseline_of
    from bench.devices.torch.probe import probe_dtypes
    from bench.devices.torch.roof import hashed_uuid
    from bench.hardware.chips import match_device

    driver, dtypes = baseline_of(device).driver_version, None
    if with_probe:
        try:
            dtypes = probe_dtypes(device.label)
        except BenchError as error:
            problems.append(str(error))
    found = match_device(device.name, device.memory_bytes, compute_units=device.compute_units)
    facts = asdict(device)
    del facts["uuid"]
    asked = {"driver": driver, "dtypes": dtypes, "chips": [chip.id for chip in found]}
    return {"label": device.label, **facts, "uuid_hash": hashed_uuid(device), **asked}


def _versions() -> dict[str, str | None]:
    """Versions that every device here shares; None where torch was built without."""
    import torch

    version: Any = torch.version
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        **{name: getattr(version, name, None) for name in ("cuda", "hip", "rocm", "xpu")},
    }


def _memory_text(entry: _Entry) -> str:
    total, free = entry["memory_bytes"], entry["memory_free_bytes"]
    if total is None:
        return "unknown"
    return format_bytes(total) + ("" if free is None else f" ({format_bytes(free)} free)")


def _dtypes_text(entry: _Entry) -> str:
    """Names of those that work, then those that compute wrong numbers."""
    if entry["dtypes"] is None:
        return "not tried"
    right, wrong = (
        " ".join(name for name, state in entry["dtypes"].items() if state == sought)
        for sought in ("ok", "wrong")
    )
    return (right or "none") + (f"; WRONG RESULTS: {wrong}" if wrong else "")


def _catalogue_text(entry: _Entry) -> str:
    chips = ", ".join(entry["chips"])
    return f"ambiguous: {chips}" if "," in chips else chips or "not in the catalogue"


def _lines(
    links: list[PhysicalLink],
    *,
    kinds: CoreKinds,
    packages: tuple[PackageState, ...],
    problems: list[str],
) -> list[str]:
    """What does not fit in a row: versions, kinds of cores, links, packages, problems."""
    from bench.devices.host.cpu import usable_cpu_ids

    lines = [" ".join(f"{name} {value}" for name, value in _versions().items() if value)]
    if kinds.slow:
        fast, slow = format_ranges(kinds.fast), format_ranges(kinds.slow)
        pinned = format_ranges(usable_cpu_ids())
        lines.append(f"cpu: fast cores {fast}, slow {slow}; trials are pinned to {pinned}")
    lines += [f"link {link.first} - {link.second}: {link.kind} {link.detail}" for link in links]
    found = [package for package in packages if package.state != "missing"]
    lines += [f"{package.module} {package.state}: {package.reason}" for package in found]
    missing = [package.module for package in packages if package.state == "missing"]
    lines += [f"vendor packages not installed: {', '.join(missing)}"] if missing else []
    return lines + [f"problem: {problem}" for problem in problems]


def doctor(as_json: AsJson = False) -> None:
    """Look for what would spoil a measurement here; changes nothing."""
    from bench.devices.doctor.all_findings import findings
    from bench.report.tables.cells import Cell
    from bench.report.tables.grid import Grid

    found = findings()
    if as_json:
        print_json({"findings": [asdict(finding) for finding in found]})
        return
    if not found:
        print("nothing found")
        return
    rows = [(Cell(word=one.severity), one.what, one.why, one.fix) for one in found]
    heads = ("severity", "what", "why it spoils a measurement", "what to do")
    print_grids([Grid(heads=heads, rows=rows)])
