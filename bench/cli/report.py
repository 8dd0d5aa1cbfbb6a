"""`bench report`: result files become one page to read, print or send."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from bench.cli.options import AsJson, ResultFiles
from bench.cli.output import print_json, print_note

if TYPE_CHECKING:
    from bench.report.page.content import Section


def report(
    files: ResultFiles,
    output: Annotated[Path, Option("-o", "--output", help="What to write: .html or .md.")] = Path(
        "report.html"
    ),
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

    from bench.analysis.comparison.comparison import Strictness
    from bench.analysis.comparison.noise_floors import floors_by_key
    from bench.cli.compare import labels
    from bench.cli.gap import command
    from bench.report.page.assemble import assemble
    from bench.report.page.evidence import gather_evidence
    from bench.report.page.page_output import check_output, write_report

    check_output(output)
    named = list(zip(labels(files), files, strict=True))
    evidence = gather_evidence(named, note=print_note)
    made = assemble(
        evidence,
        strictness=Strictness(noise_floors=floors_by_key()),
        made_utc=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        extra=_claims(files) if claims else (),
    )
    write_report(output, made)
    if as_json:
        names = [section.name for section in made.sections]
        print_json({"path": str(output), "sections": names, "rows": made.num_rows})
    else:
        typer.echo(str(output))


def _claims(files: Sequence[Path]) -> tuple[Section, ...]:
    """Section of the claims' verdicts, from the shipped rows and those of the report."""
    from bench.analysis.claims.claims_verdict import judge_all
    from bench.analysis.claims.ledger import find_claims, read_ledger, reference_rows
    from bench.report.page.sections_analysis import claims
    from bench.results.reader import read_rows

    rows = reference_rows(note=print_note)
    rows += [row for path in files for row in read_rows(path, note=print_note)]
    return (claims(judge_all(find_claims(ledger=read_ledger()), rows)),)
