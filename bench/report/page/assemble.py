"""From evidence to a report: which sections there are, in which order, and the lines on top.

A section without rows to rest on is left out. Sections that other parts of the harness can add
(`extra`) come after the verdicts and before provenance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench import __version__
from bench.analysis.figures import Options
from bench.analysis.gap import Missing
from bench.report.page.content import Report, Section
from bench.report.page.evidence import Evidence
from bench.report.page.sections_analysis import comparison, gap, present, roofline, settings_gap
from bench.report.page.sections_links import sweeps
from bench.report.page.sections_overview import overview, provenance, validity
from bench.report.page.sections_speed import energy, latency, results, steps
from bench.results.schema import SCHEMA_VERSION, USABLE


def assemble(
    evidence: Evidence,
    *,
    options: Options,
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
            comparison(evidence, options=options),
            *extra,
            provenance(evidence),
        )
    )
    workloads = evidence.frame["workload"].dropna().unique()
    few = ", ".join(str(name) for name in workloads[:4])
    return Report(
        title=f"Benchmark of {few}" + (" and more" if len(workloads) > 4 else ""),
        summary=_summary(evidence),
        modes=_modes(evidence),
        sections=sections,
        num_rows=len(evidence.frame),
        made_by=f"gapbench {__version__}, schema {SCHEMA_VERSION}, {made_utc}",
    )


def _modes(evidence: Evidence) -> tuple[str, ...]:
    found = evidence.frame["mode"].dropna().unique()
    return tuple(sorted(str(mode) for mode in found if mode != "real"))


def _summary(evidence: Evidence) -> tuple[str, ...]:
    frame, table = evidence.frame, evidence.groups.table
    usable = int(frame["status"].isin(USABLE).sum())
    devices = table["device_name"].astype(str).nunique()
    files = len(evidence.sources)
    lines = [
        f"{_count(len(frame), 'trial')} of {_count(len(table), 'configuration')} on "
        f"{_count(devices, 'device')}, from {_count(files, 'file')}.",
        f"Usable: {usable:,} of {len(frame):,}.",
    ]
    modes = frame["mode"].value_counts()
    lines += [
        f"{_count(int(num), 'trial')} [{mode}]: not measured on the hardware as named."
        for mode, num in modes.items()
        if mode != "real"
    ]
    if evidence.num_hidden:
        lines.append(
            f"{len(evidence.chosen)} configurations are shown one by one, taking turns over "
            f"workloads and devices; {evidence.num_hidden} are only counted."
        )
    return tuple(lines)


def _count(num: int, noun: str) -> str:
    return f"{num:,} {noun}" + ("" if num == 1 else "s")
