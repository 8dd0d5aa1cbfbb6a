"""`bench compare`: result files become verdicts, and verdicts an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from bench.cli.options import FORMATS, AsJson, FailOn, Strict, chosen_format
from bench.cli.output import print_answer, print_note
from bench.core.errors import UsageError


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

    Exit code: 0 no regression, 1 regression, 2 wrong use, 3 undecided (with --fail-on: a row has no
    verdict; with --strict: also INCONCLUSIVE or unmatched), 4 invalid rows or incompatible files, 5
    nothing matched.
    """
    from bench.analysis.comparison.comparison import Strictness
    from bench.analysis.comparison.comparison import compare as compare_rows
    from bench.analysis.comparison.noise_floors import floors_by_key
    from bench.analysis.comparison.verdicts import find_metric, parse_threshold
    from bench.report.tables.compare_tables import MAX_SHOWN, github, grids, lines
    from bench.results.reader import read_together

    form = chosen_format(output_format, as_json=as_json, allowed=(*FORMATS, "github"))
    strictness = Strictness(
        threshold_frac=None if fail_on is None else parse_threshold(fail_on),
        noise_floors=floors_by_key(),
        force_gate=force_gate,
    )
    chosen = find_metric(metric)
    if len(files) < 2:
        raise UsageError(
            "compare needs two result files or more: bench compare before.csv after.csv"
        )
    named = list(zip(labels(files), read_together(files, note=print_note), strict=True))
    comparison = compare_rows(named, metric=chosen, strictness=strictness)
    gate = {"is_strict": strict, "is_gate": fail_on is not None}
    if form == "github":
        typer.echo(github(comparison), nl=False)
    else:
        print_answer(
            form,
            grids(comparison, limit=None if form == "markdown" else MAX_SHOWN),
            document=lambda: comparison.document(**gate),
            lines=lines(comparison),
        )
    raise typer.Exit(int(comparison.exit_code(**gate)))


def labels(files: list[Path]) -> list[str]:
    """Shortest names that tell the files apart; a file given twice is numbered."""
    names = [path.name for path in files]
    if len(set(names)) < len(names):
        names = [str(path) for path in files]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return names
