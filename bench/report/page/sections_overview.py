"""What was run where, how far it can be trusted, and where it all comes from.

Counts rest on every row, whatever is shown of them; reasons are given in the words of the schema.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from bench.analysis.trials.configuration import number
from bench.report.page.content import PageFacts, Part, Prose, Section
from bench.report.page.evidence import Evidence, Source
from bench.report.tables.cells import (
    AnyCell,
    Cell,
    num_bytes,
    plain_unit,
    quantity,
    share,
    title_cell,
)
from bench.report.tables.grid import Grid
from bench.results.schema import REASONS, STATUSES, USABLE, Row

MAX_DEVICES = 50
MAX_UNUSABLE = 100
MAX_FACTS = 20
_ENVIRONMENT = ("device_name", "device_type", "device_stack", "device_memory_bytes", "chip",
                "power_limit_w", "driver_version", "torch_version", "threads", "cpu_model",
                "os_version")  # fmt: skip


def overview(evidence: Evidence) -> Section:
    """Files and devices."""
    parts = [_files(evidence), _devices(evidence.rows)]
    return Section(name="runs", title="What was run where", parts=tuple(parts))


def _files(evidence: Evidence) -> Grid:
    return Grid.of(
        evidence.sources,
        {
            "file": lambda source: source.label,
            "run": lambda source: _few(source.rows, "run_id"),
            "started (UTC)": _started,
            "device": lambda source: _few(source.rows, "device_name", "device"),
            "workloads": lambda source: _few(source.rows, "workload", limit=8),
            "trials": lambda source: quantity(len(source.rows)),
            "usable": lambda source: quantity(sum(row["status"] in USABLE for row in source.rows)),
            "bench": lambda source: _few(source.rows, "bench_version"),
            "commit": lambda source: _few(source.rows, "git_commit", end=12),
        },
        title="Files",
    )


def _started(source: Source) -> str:
    started = [str(row["started_utc"]) for row in source.rows if row.get("started_utc")]
    return min(started, default="")[:16].replace("T", " ")


def _few(rows: Sequence[Row], *columns: str, limit: int = 3, end: int | None = None) -> str:
    """Values of the first of these columns that is not blank in a row, each once."""
    cells = (next((row[name] for name in columns if row.get(name)), None) for row in rows)
    found = list(dict.fromkeys(str(cell)[:end] for cell in cells if cell is not None))
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def _devices(found: Sequence[Row]) -> Grid:
    kinds = {
        tuple(row.get(name) for name in _ENVIRONMENT): row
        for row in found
        if row.get("device_name")
    }
    columns: dict[str, Callable[[Row], AnyCell]] = {
        "device": lambda row: _word(row, "device_name"),
        "stack": lambda row: _word(row, "device_stack") or _word(row, "device_type"),
        "memory": lambda row: quantity(number(row, "device_memory_bytes"), num_bytes),
        "chip": lambda row: _word(row, "chip"),
        "power limit": lambda row: quantity(number(row, "power_limit_w"), plain_unit("W")),
        "driver": lambda row: _word(row, "driver_version"),
        "torch": lambda row: _word(row, "torch_version"),
        "threads": lambda row: quantity(number(row, "threads")),
        "processor": lambda row: _word(row, "cpu_model"),
        "system": lambda row: _word(row, "os_version"),
    }
    shown = list(kinds.values())[:MAX_DEVICES]
    notes = _hidden(len(kinds) - len(shown), "environments")
    return Grid.of(shown, columns, title="Devices", notes=notes)


def _word(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value)


def _hidden(num: int, what: str) -> list[str]:
    return [f"{num} further {what} are not shown"] if num > 0 else []


def validity(evidence: Evidence) -> Section:
    """Statuses, reasons in words, and configurations that nothing can be said about."""
    found = evidence.rows
    counts = Counter(str(row["status"]) for row in found)
    columns: dict[str, Callable[[str], AnyCell]] = {
        "status": lambda status: Cell(word=status),
        "trials": lambda status: quantity(counts[status]),
        "share": lambda status: share(counts[status] / len(found)),
        "meaning": lambda status: STATUSES[status].replace("`", ""),
    }
    statuses = [status for status in STATUSES if status in counts]
    parts: list[Part] = [Grid.of(statuses, columns, title="Status of trials")]
    reasons, unusable = _reasons(found), _unusable(evidence)
    parts += [reasons] if reasons.rows else [Prose(lines=("No trial has a reservation.",))]
    parts += [unusable] if unusable.rows else []
    return Section(name="validity", title="How far it can be trusted", parts=tuple(parts))


def _reasons(found: Sequence[Row]) -> Grid:
    rows_of: dict[str, list[Row]] = {}
    for row in found:
        for code in dict.fromkeys(c for c in str(row.get("reasons") or "").split(";") if c):
            rows_of.setdefault(code, []).append(row)
    columns: dict[str, Callable[[str], AnyCell]] = {
        "reason": str,
        "trials": lambda code: quantity(len(rows_of[code])),
        "what it means, and what to do": lambda code: REASONS.get(code, "unknown reason"),
        "workloads": lambda code: ", ".join(_distinct(rows_of[code], "workload")[:8]),
        "message of one": lambda code: next(iter(_distinct(rows_of[code], "detail")), ""),
    }
    common_first = sorted(rows_of, key=lambda code: -len(rows_of[code]))
    return Grid.of(common_first, columns, title="Reasons")


def _distinct(rows: Sequence[Row], column: str) -> list[str]:
    return list(dict.fromkeys(str(row[column]) for row in rows if row.get(column)))


def _unusable(evidence: Evidence) -> Grid:
    lost = [one for one in evidence.configurations if not one.used]
    return Grid.of(
        lost[:MAX_UNUSABLE],
        {
            "configuration": lambda one: title_cell(one.first),
            "device": lambda one: one.text("device_name") or one.text("device"),
            "status": lambda one: ", ".join(_distinct(one.rows, "status")),
            "reasons": lambda one: ", ".join(_distinct(one.rows, "reasons")),
            "message": lambda one: next(iter(_distinct(one.rows, "detail")), ""),
        },
        title="Without any usable trial",
        notes=_hidden(len(lost) - MAX_UNUSABLE, "configurations"),
    )


def provenance(evidence: Evidence) -> Section:
    """Files by content, environments and requests in full."""
    rows = [
        (
            source.label,
            quantity(len(source.rows)),
            source.sha256,
            _few(source.rows, "env_id", end=16),
        )
        for source in evidence.sources
    ]
    heads = ("file", "rows", "SHA-256 of the file", "environment id")
    parts: list[Part] = [Grid(heads=heads, rows=rows)]
    if evidence.notes:
        parts.append(Prose(lines=evidence.notes, is_list=True))
    for source in evidence.sources[:MAX_FACTS]:
        if source.sidecar is None:
            parts.append(Prose(lines=(f"{source.label}: no environment file lies beside it.",)))
            continue
        environment, request = source.sidecar.environment, source.sidecar.request
        parts.append(PageFacts(title=f"Environment of {source.label}", facts=environment))
        parts.append(PageFacts(title=f"Request of {source.label}", facts=request))
    hidden = len(evidence.sources) - MAX_FACTS
    if hidden > 0:
        parts.append(Prose(lines=(f"Environments of {hidden} further files are not shown.",)))
    return Section(name="provenance", title="Where it comes from", parts=tuple(parts))
