"""`bench compare`: result files become verdicts, and verdicts an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from bench.cli.options import FORMATS, AsJson, FailOn, Strict, chosen_format
from bench.cli.output import print_grids, print_json, print_note
from bench.core.errors import UsageError

if TYPE_CHECKING:
    from bench.analysis.comparison.comparison import Comparison, Strictness


def compare(
    files: Annotated[
        list[Path], Argument(help="Result files; the first is the baseline.", metavar="CSV...")
    ],
    metric: Annotated[
        str, Option(help="What to compare: time, energy, memory, ttft or latency.")
    ] = "time",
    fail_on: FailOn = None,
    strict: Strict = False,
    force_gate: Annotated[
        bool, Option("--force-gate", help="Give verdicts across different devices too.")
    ] = False,
    output_format: Annotated[
        str, Option("--format", help="table, markdown, json or github (job summary).")
    ] = "table",
    as_json: AsJson = False,
) -> None:
    """Say whether B is slower than A, by how much, and whether that is real.

    Exit code: 0 no regression, 1 regression, 2 wrong use, 3 undecided under --strict, 4 invalid
    rows or incompatible files, 5 nothing matched.
    """
    from bench.analysis.comparison.comparison import Strictness
    from bench.analysis.comparison.noise_floors import floors_by_key
    from bench.analysis.comparison.verdicts import parse_threshold

    form = chosen_format(output_format, as_json=as_json, allowed=(*FORMATS, "github"))
    strictness = Strictness(
        threshold_frac=None if fail_on is None else parse_threshold(fail_on),
        noise_floors=floors_by_key(),
        force_gate=force_gate,
    )
    comparison = load_and_compare(files, metric=metric, strictness=strictness)
    show(comparison, form=form, is_strict=strict)
    raise typer.Exit(int(comparison.exit_code(is_strict=strict)))


def load_and_compare(files: list[Path], *, metric: str, strictness: Strictness) -> Comparison:
    """Read result files and compare each with the first."""
    from bench.analysis.comparison.comparison import compare as compare_rows
    from bench.analysis.comparison.metrics import find_metric
    from bench.results.reader import read_rows

    chosen = find_metric(metric)
    if len(files) < 2:
        raise UsageError(
            "compare needs two result files or more: bench compare before.csv after.csv"
        )
    rows = [read_rows(path, note=print_note) for path in files]
    return compare_rows(
        list(zip(labels(files), rows, strict=True)), metric=chosen, strictness=strictness
    )


def labels(files: list[Path]) -> list[str]:
    """Shortest names that tell the files apart; a file given twice is numbered."""
    names = [path.name for path in files]
    if len(set(names)) < len(names):
        names = [str(path) for path in files]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return names


def show(comparison: Comparison, *, form: str, is_strict: bool) -> None:
    """Print a comparison in the format asked for."""
    from bench.report.tables import compare_tables

    if form == "json":
        print_json(comparison.document(is_strict=is_strict))
        return
    if form == "github":
        typer.echo(compare_tables.github(comparison), nl=False)
        return
    is_markdown = form == "markdown"
    print_grids(
        compare_tables.grids(comparison, limit=None if is_markdown else compare_tables.MAX_SHOWN),
        lines=compare_tables.lines(comparison),
        is_markdown=is_markdown,
    )
