"""From evidence to a report: which sections there are, in which order, and the lines on top.

A section without rows to rest on is left out. Sections that other parts of the harness can add
(`extra`) come after the verdicts and before provenance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from bench import __version__
from bench.analysis.comparison.comparison import Strictness
from bench.analysis.gap.gap_result import Missing
from bench.report.page.content import Report, Section
from bench.report.page.evidence import Evidence
from bench.report.page.sections_analysis import (
    comparison,
    gap,
    present,
    roofline,
    settings_gap,
    sweeps,
)
from bench.report.page.sections_overview import overview, provenance, validity
from bench.report.page.sections_speed import energy, latency, results, steps
from bench.results.schema import SCHEMA_VERSION, USABLE


def assemble(
    evidence: Evidence,
    *,
    strictness: Strictness,
    made_utc: str,
    command: Callable[[Missing], str] | None = None,
    extra: Sequence[Section] = (),
) -> Report:
    """Build the report; `command` says how a missing half of a gap would be measured."""
    gaps, num_hidden = settings_gap(evidence)
    sections = present(
        (
            overview(evidence),
            validity(evidence),
            results(evidence),
            gap(gaps, num_hidden=num_hidden, num_files=len(evidence.sources), command=command),
            roofline(gaps),
            latency(evidence),
            steps(evidence),
            energy(evidence),
            sweeps(evidence),
            comparison(evidence, strictness=strictness),
            *extra,
            provenance(evidence),
        )
    )
    workloads = list(dict.fromkeys(str(row["workload"]) for row in evidence.rows))
    few = ", ".join(workloads[:4])
    return Report(
        title=f"Benchmark of {few}" + (" and more" if len(workloads) > 4 else ""),
        summary=_summary(evidence),
        modes=_modes(evidence),
        sections=sections,
        num_rows=len(evidence.rows),
        made_by=f"gapbench {__version__}, schema {SCHEMA_VERSION}, {made_utc}",
    )


def _modes(evidence: Evidence) -> tuple[str, ...]:
    found = {str(row["mode"]) for row in evidence.rows if row.get("mode")}
    return tuple(sorted(found - {"real"}))


def _summary(evidence: Evidence) -> tuple[str, ...]:
    rows, configurations = evidence.rows, evidence.configurations
    usable = sum(row["status"] in USABLE for row in rows)
    devices = len({one.text("device_name") for one in configurations})
    files = len(evidence.sources)
    lines = [
        f"{_count(len(rows), 'trial')} of {_count(len(configurations), 'configuration')} on "
        f"{_count(devices, 'device')}, from {_count(files, 'file')}.",
        f"Usable: {usable:,} of {len(rows):,}.",
    ]
    modes = Counter(str(row["mode"]) for row in rows if row.get("mode"))
    lines += [
        f"{_count(num, 'trial')} [{mode}]: not measured on the hardware as named."
        for mode, num in modes.most_common()
        if mode != "real"
    ]
    if evidence.num_hidden:
        lines.append(
            f"{len(evidence.shown)} configurations are shown one by one, taking turns over "
            f"workloads and devices; {evidence.num_hidden} are only counted."
        )
    return tuple(lines)


def _count(num: int, noun: str) -> str:
    return f"{num:,} {noun}" + ("" if num == 1 else "s")
