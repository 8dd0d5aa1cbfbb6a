"""`bench report`: result files become one page to read, print or send."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from bench.cli.options import AsJson, ResultFiles, SizeFor, To, Workloads
from bench.cli.output import print_json, print_note


def report(
    files: ResultFiles,
    output: Annotated[Path, Option("-o", "--output", help="What to write: .html or .md.")] = Path(
        "report.html"
    ),
    workload: Workloads = None,
    to: To = None,
    size_for: SizeFor = None,
    claims: Annotated[
        bool, Option("--claims", help="Add which published claims hold, with these rows.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained page: validity, speed, gap, roofline, energy, verdicts, origin.

    Several files are compared with the first. The page needs no network; an .md file has the
    same tables.
    """
    from datetime import UTC, datetime
    from functools import partial

    from bench.analysis.claims.ledger import find_claims, read_ledger
    from bench.analysis.comparison.comparison import Strictness
    from bench.analysis.comparison.noise_floors import floors_by_key
    from bench.cli.claims import judged
    from bench.cli.compare import labels
    from bench.cli.gap import command
    from bench.cli.project import measured, projected, sized
    from bench.report.page.content import Part, Prose
    from bench.report.page.evidence import gather_evidence
    from bench.report.page.report_page import check_output, sections_of, write_report

    check_output(output)
    named = list(zip(labels(files), files, strict=True))
    evidence = gather_evidence(named, note=print_note, workloads=workload or ())
    projections: list[Part] = []
    if to or size_for:
        found, left_out = measured(
            files, workloads=workload or (), note=lambda _: None, has_queue=size_for is not None
        )
        answers = [projected(found, left_out, to=to, devices=1, link=None)] if to else []
        answers += [sized(size_for, found, to=to)] if size_for else []
        for grids, lines, _ in answers:
            projections += [*grids, Prose(lines=tuple(lines), is_list=True)]
    every_claim = find_claims(ledger=read_ledger()) if claims else ()
    sections = sections_of(
        evidence,
        strictness=Strictness(noise_floors=floors_by_key()),
        command=partial(command, workloads=",".join(workload or ["all"])),
        projections=projections,
        verdicts=judged(every_claim, files, with_reference=True) if claims else (),
    )
    made_utc = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_report(output, evidence, sections, made_utc=made_utc)
    if as_json:
        names = [section.name for section in sections]
        print_json({"path": str(output), "sections": names, "rows": len(evidence.rows)})
    else:
        typer.echo(str(output))
