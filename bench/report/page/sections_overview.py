"""What was run where, how far it can be trusted, and where it all comes from.

Counts rest on every row, whatever is shown of them; reasons are told in the words of the schema.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.analysis.trials.configuration import number
from bench.report.page.content import Facts, Part, Prose, Section
from bench.report.page.evidence import Evidence
from bench.report.tables.cells import (
    count,
    num_bytes,
    plain_unit,
    quantity,
    share,
    title_cell,
    verdict,
    words_of,
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
    rows = []
    for source in evidence.sources:
        found = source.rows
        started = sorted(str(row["started_utc"]) for row in found if row.get("started_utc"))
        rows.append(
            (
                source.label,
                _few(found, "run_id"),
                started[0][:16].replace("T", " ") if started else "",
                _few(found, "device_name", "device"),
                _few(found, "workload", limit=8),
                count(len(found)),
                count(sum(row["status"] in USABLE for row in found)),
                _few(found, "bench_version"),
                _few(found, "git_commit", end=12),
            )
        )
    heads = ("file", "run", "started (UTC)", "device", "workloads", "trials", "usable", "bench",
             "commit")  # fmt: skip
    return Grid(heads=heads, rows=rows, title="Files")


def _few(rows: Sequence[Row], *columns: str, limit: int = 3, end: int | None = None) -> str:
    """Values of the first of these columns that is not blank in a row, each once."""
    cells = (next((row[name] for name in columns if row.get(name)), None) for row in rows)
    found = list(dict.fromkeys(str(cell)[:end] for cell in cells if cell is not None))
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def _devices(found: Sequence[Row]) -> Grid:
    kinds = dict.fromkeys(
        tuple(row.get(name) for name in _ENVIRONMENT) for row in found if row.get("device_name")
    )
    rows = []
    for kind in list(kinds)[:MAX_DEVICES]:
        known = dict(zip(_ENVIRONMENT, kind, strict=True))
        words = {name: "" if value is None else str(value) for name, value in known.items()}
        rows.append(
            (
                words["device_name"],
                words["device_stack"] or words["device_type"],
                quantity(number(known, "device_memory_bytes"), num_bytes),
                words["chip"],
                quantity(number(known, "power_limit_w"), plain_unit("W")),
                words["driver_version"],
                words["torch_version"],
                count(number(known, "threads")),
                words["cpu_model"],
                words["os_version"],
            )
        )
    heads = ("device", "stack", "memory", "chip", "power limit", "driver", "torch", "threads",
             "processor", "system")  # fmt: skip
    hidden = len(kinds) - len(rows)
    notes = (f"{hidden} further environments are not shown",) if hidden else ()
    return Grid(heads=heads, rows=rows, title="Devices", notes=notes)


def validity(evidence: Evidence) -> Section:
    """Statuses, reasons in words, and configurations that nothing can be said about."""
    found = evidence.rows
    counts = Counter(str(row["status"]) for row in found)
    rows = [
        (
            verdict(status),
            count(counts[status]),
            share(counts[status] / len(found)),
            meaning.replace("`", ""),
        )
        for status, meaning in STATUSES.items()
        if status in counts
    ]
    heads = ("status", "trials", "share", "meaning")
    parts: list[Part] = [Grid(heads=heads, rows=rows, title="Status of trials")]
    reasons, unusable = _reasons(found), _unusable(evidence)
    parts += [reasons] if reasons.rows else [Prose(lines=("No trial has a reservation.",))]
    parts += [unusable] if unusable.rows else []
    return Section(name="validity", title="How far it can be trusted", parts=tuple(parts))


def _reasons(found: Sequence[Row]) -> Grid:
    trials: Counter[str] = Counter()
    workloads: dict[str, dict[str, None]] = {}
    details: dict[str, str] = {}
    for row in found:
        for code in dict.fromkeys(c for c in str(row.get("reasons") or "").split(";") if c):
            trials[code] += 1
            workloads.setdefault(code, {})[str(row["workload"])] = None
            if row.get("detail"):
                details.setdefault(code, str(row["detail"]))
    rows = [
        (
            code,
            count(num),
            REASONS.get(code, "unknown reason"),
            ", ".join(list(workloads[code])[:8]),
            details.get(code, ""),
        )
        for code, num in trials.most_common()
    ]
    heads = ("reason", "trials", "what it means, and what to do", "workloads", "message of one")
    return Grid(heads=heads, rows=rows, title="Reasons")


def _unusable(evidence: Evidence) -> Grid:
    lost = [one for one in evidence.configurations if not one.used]
    rows = [
        (
            title_cell(one.first),
            one.text("device_name") or one.text("device"),
            words_of(row["status"] for row in one.rows),
            words_of(row.get("reasons") for row in one.rows),
            next((str(row["detail"]) for row in one.rows if row.get("detail")), ""),
        )
        for one in lost[:MAX_UNUSABLE]
    ]
    hidden = len(lost) - len(rows)
    notes = (f"{hidden} further configurations are not shown",) if hidden else ()
    return Grid(
        heads=("configuration", "device", "status", "reasons", "message"),
        rows=rows,
        title="Without any usable trial",
        notes=notes,
    )


def provenance(evidence: Evidence) -> Section:
    """Files by content, environments and requests in full."""
    rows = [
        (source.label, count(len(source.rows)), source.sha256, _few(source.rows, "env_id", end=16))
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
        parts.append(Facts(title=f"Environment of {source.label}", facts=environment))
        parts.append(Facts(title=f"Request of {source.label}", facts=request))
    hidden = len(evidence.sources) - MAX_FACTS
    if hidden > 0:
        parts.append(Prose(lines=(f"Environments of {hidden} further files are not shown.",)))
    return Section(name="provenance", title="Where it comes from", parts=tuple(parts))
