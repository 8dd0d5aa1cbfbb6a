"""What was run where, how far it can be trusted, and where it all comes from.

Counts rest on every row, whatever is shown of them; reasons are told in the words of the schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.page.content import Facts, Part, Prose, Section
from bench.report.page.evidence import Evidence
from bench.report.tables.cells import (
    count,
    num_bytes,
    plain_unit,
    quantity,
    share,
    verdict,
    words_of,
)
from bench.report.tables.grid import Grid
from bench.report.tables.run_table import title_cell
from bench.results.schema import REASONS, STATUSES, USABLE

if TYPE_CHECKING:
    import pandas as pd

MAX_DEVICES = 50
MAX_UNUSABLE = 100
MAX_FACTS = 20
_ENVIRONMENT = ("device_name", "device_type", "device_stack", "device_memory_bytes", "chip",
                "power_limit_w", "driver_version", "torch_version", "threads", "cpu_model",
                "os_version")  # fmt: skip


def overview(evidence: Evidence) -> Section:
    """Files and devices."""
    parts = [_files(evidence), _devices(evidence.frame)]
    return Section(name="runs", title="What was run where", parts=tuple(parts))


def _files(evidence: Evidence) -> Grid:
    rows = []
    for source, frame in zip(evidence.sources, evidence.frames, strict=True):
        usable = int(frame["status"].isin(USABLE).sum())
        rows.append(
            (
                source.label,
                _few(frame["run_id"]),
                _few(frame["started_utc"].dropna().sort_values().head(1), end=16).replace("T", " "),
                _few(frame["device_name"].astype(object).fillna(frame["device"])),
                _few(frame["workload"], limit=8),
                count(len(frame)),
                count(usable),
                _few(frame["bench_version"]),
                _few(frame["git_commit"], end=12),
            )
        )
    heads = ("file", "run", "started (UTC)", "device", "workloads", "trials", "usable", "bench",
             "commit")  # fmt: skip
    return Grid(heads=heads, rows=rows, title="Files")


def _few(values: pd.Series[str], *, limit: int = 3, end: int | None = None) -> str:
    found = list(dict.fromkeys(str(value)[:end] for value in values.dropna().unique()))
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def _devices(frame: pd.DataFrame) -> Grid:
    kinds = frame[list(_ENVIRONMENT)].drop_duplicates()
    kinds = kinds[kinds["device_name"].notna()]
    rows = []
    for record in kinds.head(MAX_DEVICES).to_dict("records"):
        known = {name: None if value != value else value for name, value in record.items()}
        words = {name: "" if value is None else str(value) for name, value in known.items()}
        rows.append(
            (
                words["device_name"],
                words["device_stack"] or words["device_type"],
                quantity(known["device_memory_bytes"], num_bytes),
                words["chip"],
                quantity(known["power_limit_w"], plain_unit("W")),
                words["driver_version"],
                words["torch_version"],
                count(known["threads"]),
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
    frame = evidence.frame
    counts = frame["status"].value_counts()
    rows = [
        (
            verdict(status),
            count(int(counts[status])),
            share(int(counts[status]) / len(frame)),
            meaning.replace("`", ""),
        )
        for status, meaning in STATUSES.items()
        if status in counts
    ]
    heads = ("status", "trials", "share", "meaning")
    parts: list[Part] = [Grid(heads=heads, rows=rows, title="Status of trials")]
    reasons, unusable = _reasons(frame), _unusable(evidence)
    parts += [reasons] if reasons.rows else [Prose(lines=("No trial has a reservation.",))]
    parts += [unusable] if unusable.rows else []
    return Section(name="validity", title="How far it can be trusted", parts=tuple(parts))


def _reasons(frame: pd.DataFrame) -> Grid:
    remarked = frame[frame["reasons"].notna()]
    trials: dict[str, int] = {}
    workloads: dict[str, dict[str, None]] = {}
    details: dict[str, str] = {}
    grouped = remarked.groupby(["reasons", "workload"], observed=True, sort=False)
    counted = grouped.agg(num=("status", "size"), detail=("detail", "first")).reset_index()
    for codes, workload, num, detail in counted.itertuples(index=False, name=None):
        for code in dict.fromkeys(code for code in str(codes).split(";") if code):
            trials[code] = trials.get(code, 0) + int(num)
            workloads.setdefault(code, {})[str(workload)] = None
            if code not in details and detail == detail and detail:
                details[code] = str(detail)
    rows = [
        (
            code,
            count(num),
            REASONS.get(code, "unknown reason"),
            ", ".join(list(workloads[code])[:8]),
            details.get(code, ""),
        )
        for code, num in sorted(trials.items(), key=lambda item: -item[1])
    ]
    heads = ("reason", "trials", "what it means, and what to do", "workloads", "message of one")
    return Grid(heads=heads, rows=rows, title="Reasons")


def _unusable(evidence: Evidence) -> Grid:
    table = evidence.groups.table
    lost = table.index[table["num_used"] == 0].tolist()
    shown = evidence.rows_by_group(lost[:MAX_UNUSABLE])
    rows = [
        (
            title_cell(group[0]),
            str(group[0].get("device_name") or group[0]["device"]),
            words_of(row["status"] for row in group),
            words_of(row.get("reasons") for row in group),
            next((str(row["detail"]) for row in group if row.get("detail")), ""),
        )
        for group in shown.values()
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
        (source.label, count(source.num_rows), source.sha256, _few(frame["env_id"], end=16))
        for source, frame in zip(evidence.sources, evidence.frames, strict=True)
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
