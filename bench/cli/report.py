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
    from bench.analysis.claims.claims_verdict import ClaimVerdict


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
    from bench.report.page.evidence import gather_evidence
    from bench.report.page.report_page import check_output, sections_of, write_report

    check_output(output)
    named = list(zip(labels(files), files, strict=True))
    evidence = gather_evidence(named, note=print_note)
    sections = sections_of(
        evidence,
        strictness=Strictness(noise_floors=floors_by_key()),
        command=command,
        verdicts=_verdicts(files) if claims else (),
    )
    made_utc = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_report(output, evidence, sections, made_utc=made_utc)
    if as_json:
        names = [section.name for section in sections]
        print_json({"path": str(output), "sections": names, "rows": len(evidence.rows)})
    else:
        typer.echo(str(output))


def _verdicts(files: Sequence[Path]) -> Sequence[ClaimVerdict]:
    """Of all claims, from the shipped rows and those of the report."""
    from bench.analysis.claims.claims_verdict import judge_all
    from bench.analysis.claims.ledger import find_claims, read_ledger, reference_rows
    from bench.results.reader import read_rows, set_aside_smoke

    rows = reference_rows(note=print_note)
    rows += [row for path in files for row in read_rows(path, note=print_note)]
    [rows] = set_aside_smoke([rows], note=print_note)
    return judge_all(find_claims(ledger=read_ledger()), rows)
