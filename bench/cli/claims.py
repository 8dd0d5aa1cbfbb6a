"""`bench claims`: which published figures hold, computed from rows, catalogue and models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from bench.cli.options import AsJson, Out, OutputFormat, chosen_format
from bench.cli.output import print_grids, print_json, print_note
from bench.core.errors import ExitCode, MeasurementError
from bench.core.paths import user_path
from bench.core.units import parse_duration_s

if TYPE_CHECKING:
    from bench.analysis.claims.claims_verdict import ClaimVerdict
    from bench.analysis.claims.ledger import Claim

_LEAST_BUDGET_S = 20.0
"""A recipe with less ends before it has a single trial."""
_SMALL_SIZE_BELOW_S = 60.0
"""Time of one configuration: a quick trial of a size that fills a device takes about as long."""


def claims(
    names: Annotated[
        list[str] | None,
        Argument(
            help="Claims by id, number or article (F1), and result files.", metavar="[ID|CSV]..."
        ),
    ] = None,
    why: Annotated[
        bool, Option("--why", help="Show every case, its figures and its sources.")
    ] = False,
    run: Annotated[
        bool, Option("--run", help="First run the recipes that this machine can run.")
    ] = False,
    budget: Annotated[str, Option(help="Time for all of --run together.")] = "10m",
    out: Out = Path("results"),
    reference: Annotated[
        bool, Option("--reference/--no-reference", help="Use the rows that ship with the harness.")
    ] = True,
    strict: Annotated[
        bool, Option("--strict", help="Exit 1 when a claim is refuted, 3 when one is undecided.")
    ] = False,
    output_format: OutputFormat = "table",
    as_json: AsJson = False,
) -> None:
    """Show which published claims hold, under which condition, and what that rests on.

    Exit codes: 0, whatever the verdicts; with --strict 1 where a claim is refuted and 3 where one
    is undecided; 2 for an unknown claim.
    """
    from bench.analysis.claims.ledger import find_claims, read_ledger

    form = chosen_format(output_format, as_json=as_json)
    given = dict.fromkeys(names or [])
    ids = [name for name in given if not name.lower().endswith(".csv")]
    files = [user_path(name, what="result file") for name in given if name not in ids]
    chosen = find_claims(ids, ledger=read_ledger())
    if run:
        files += _measured(chosen, budget=budget, out=out)
    verdicts = judged(chosen, files, with_reference=reference)
    _show(verdicts, form=form, why=why, is_overview=not ids)
    words = {verdict.word for verdict in verdicts}
    if strict and "REFUTED" in words:
        raise typer.Exit(ExitCode.REGRESSION)
    if strict and "UNDECIDED" in words:
        raise typer.Exit(ExitCode.INCONCLUSIVE)


def judged(
    chosen: Sequence[Claim], files: Sequence[Path], *, with_reference: bool
) -> Sequence[ClaimVerdict]:
    """Verdicts from the rows of `files` and those that ship with the harness."""
    from bench.analysis.claims.claims_verdict import judge_all
    from bench.analysis.claims.ledger import reference_files
    from bench.cli.workload_formulas import work_of
    from bench.results.reader import read_all

    paths = [*(reference_files() if with_reference else ()), *files]
    return judge_all(chosen, read_all(paths, note=print_note), work_of=work_of)


def _measured(chosen: Sequence[Claim], *, budget: str, out: Path) -> list[Path]:
    """Run the recipes that bear on the claims, each once and with its share of the budget."""
    import shlex

    from bench.results.reader import read_rows
    from bench.results.schema import USABLE
    from bench.run.arms import run_bench
    from bench.run.recipes import RECIPES

    recipes = [one for one in RECIPES if one.name in {claim.experiment for claim in chosen}]
    budget_s = parse_duration_s(budget, what="--budget")
    num_fit = max(1, int(budget_s // _LEAST_BUDGET_S))
    for recipe in recipes[num_fit:]:
        print_note(f"left out, no time in --budget {budget}: {recipe.command}")
    paths = []
    for recipe in recipes[:num_fit]:
        share_s = budget_s / min(num_fit, len(recipes))
        is_short = share_s / recipe.num_configurations < _SMALL_SIZE_BELOW_S
        line = f"{recipe.command} --profile quick --budget {share_s:.0f}s"
        line += " --size tiny" if is_short else ""
        print_note(line)
        try:
            paths.append(run_bench(shlex.split(line)[2:], out=out))
        except MeasurementError:  # the run has said why
            print_note(f"not measured here: {recipe.command}")
            continue
        statuses = [row["status"] for row in read_rows(paths[-1])]
        usable = sum(status in USABLE for status in statuses)
        print_note(f"{recipe.name}: {usable} of {len(statuses)} trials can be used")
    return paths


def _show(verdicts: Sequence[ClaimVerdict], *, form: str, why: bool, is_overview: bool) -> None:
    from bench.analysis.claims.claims_verdict import claims_document
    from bench.report.tables import claims_table as tables
    from bench.run.recipes import recipe

    is_markdown = form == "markdown"
    if form == "json":
        print_json(claims_document(verdicts))
    elif not why:
        screen = tables.overview if is_overview else tables.listed
        grid = (tables.claims_grid if is_markdown else screen)(verdicts)
        print_grids([grid], is_markdown=is_markdown)
    else:
        for verdict in verdicts:
            experiment = verdict.claim.experiment
            command = None if experiment is None else recipe(experiment).command
            head, tail = tables.why_lines(verdict, command=command)
            print_grids([], lines=head, is_markdown=is_markdown)
            typer.echo()
            print_grids(tables.case_grids(verdict), lines=tail, is_markdown=is_markdown)
            typer.echo()
