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
    from bench.analysis.claims.claim import Claim, Verdict
    from bench.results.schema import Row
    from bench.run.recipes import Recipe

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
    from bench.analysis.claims.claims_facts import make_facts, reference_rows, seeds_folder
    from bench.analysis.claims.claims_file import find_claims, read_ledger
    from bench.analysis.claims.claims_verdict import judge
    from bench.results.reader import read_rows

    form = chosen_format(output_format, as_json=as_json)
    ids, files = _split(names or [])
    chosen = find_claims(read_ledger(seeds_folder()), ids)
    if run:
        files += _measured(chosen, budget=budget, out=out)
    rows: list[Row] = reference_rows(note=print_note) if reference else []
    rows += [row for path in files for row in read_rows(path, note=print_note)]
    facts = make_facts(rows)
    verdicts = [judge(claim, facts) for claim in chosen]
    _show(verdicts, form=form, why=why)
    if strict:
        raise typer.Exit(_strict_code(verdicts))


def _split(names: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Claims and result files: a file ends in .csv."""
    files = [name for name in names if name.lower().endswith(".csv")]
    return [name for name in names if name not in files], [
        user_path(name, what="result file") for name in files
    ]


def _strict_code(verdicts: Sequence[Verdict]) -> int:
    words = {verdict.word for verdict in verdicts}
    if "REFUTED" in words:
        return int(ExitCode.REGRESSION)
    return int(ExitCode.INCONCLUSIVE if "UNDECIDED" in words else ExitCode.OK)


def _measured(chosen: Sequence[Claim], *, budget: str, out: Path) -> list[Path]:
    """Run the recipes that bear on the claims, each with its share of the budget."""
    import shlex

    from bench.run.nested import run_bench

    recipes = _recipes(chosen)
    budget_s = parse_duration_s(budget, what="--budget")
    num_fit = max(1, int(budget_s // _LEAST_BUDGET_S))
    for recipe in recipes[num_fit:]:
        print_note(f"left out, no time in --budget {budget}: {recipe.command}")
    recipes = recipes[:num_fit]
    paths = []
    for recipe in recipes:
        line = _line(recipe, share_s=budget_s / len(recipes))
        print_note(line)
        try:
            paths.append(run_bench(shlex.split(line)[2:], out=out))
            print_note(f"{recipe.name}: {_usable(paths[-1])}")
        except MeasurementError:  # the run has said why
            print_note(f"not measured here: {recipe.command}")
    return paths


def _line(recipe: Recipe, *, share_s: float) -> str:
    """Command of a recipe, at the smallest size where its share is short."""
    line = f"{recipe.command} --profile quick --budget {share_s:.0f}s"
    is_short = share_s / recipe.num_configurations < _SMALL_SIZE_BELOW_S
    return f"{line} --size tiny" if is_short else line


def _usable(path: Path) -> str:
    from bench.results.reader import read_rows
    from bench.results.schema import USABLE

    rows = read_rows(path)
    usable = sum(row["status"] in USABLE for row in rows)
    return f"{usable} of {len(rows)} trials can be used"


def _recipes(chosen: Sequence[Claim]) -> list[Recipe]:
    """Experiments with something to measure, each once."""
    from bench.run.recipes import RECIPES

    wanted = {claim.experiment for claim in chosen}
    return [one for one in RECIPES if one.name in wanted]


def command_for(claim: Claim) -> str | None:
    """Command that measures what the claim is about."""
    from bench.run.recipes import recipe

    return None if claim.experiment is None else recipe(claim.experiment).command


def _show(verdicts: Sequence[Verdict], *, form: str, why: bool) -> None:
    from bench.analysis.claims.claims_document import claims_document
    from bench.report.tables.claims_table import case_grids, claims_grid, screen_grid, why_lines

    is_markdown = form == "markdown"
    if form == "json":
        print_json(claims_document(verdicts))
    elif not why:
        print_grids(
            [(claims_grid if is_markdown else screen_grid)(verdicts)], is_markdown=is_markdown
        )
    else:
        for verdict in verdicts:
            head, tail = why_lines(verdict, command=command_for(verdict.claim))
            print_grids([], lines=head, is_markdown=is_markdown)
            typer.echo()
            print_grids(case_grids(verdict), lines=tail, is_markdown=is_markdown)
            typer.echo()
