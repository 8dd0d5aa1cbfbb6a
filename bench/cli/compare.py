"""`bench compare`: result files become verdicts, and verdicts an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.analysis.comparison.compare_files import Strictness
    from bench.analysis.comparison.comparison import Comparison

_FORMATS = ["table", "markdown", "json", "github"]


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(help="Result files; the first is the baseline.", metavar="CSV..."),
    ],
    metric: Annotated[
        str, typer.Option(help="What to compare: time, energy, memory, ttft or latency.")
    ] = "time",
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="Smallest change that matters, such as 5% (default: by metric and device).",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 when anything stays undecided.")
    ] = False,
    force_gate: Annotated[
        bool, typer.Option("--force-gate", help="Give verdicts across different devices too.")
    ] = False,
    output_format: Annotated[
        str, typer.Option("--format", help="table, markdown, json or github (job summary).")
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say whether B is slower than A, by how much, and whether that is real.

    Exit code: 0 no regression, 1 regression, 2 wrong use, 3 undecided under --strict, 4 invalid
    rows or incompatible files, 5 nothing matched.
    """
    from bench.analysis.comparison.compare_files import Strictness
    from bench.analysis.comparison.noise_floors import (
        default_noise_path,
        floors_by_key,
        load_floors,
    )
    from bench.analysis.comparison.verdicts import parse_threshold
    from bench.core.errors import one_of

    if output_format not in _FORMATS:
        raise one_of("--format", output_format, _FORMATS)
    strictness = Strictness(
        threshold_frac=None if fail_on is None else parse_threshold(fail_on),
        noise_floors=floors_by_key(load_floors(default_noise_path())),
        force_gate=force_gate,
    )
    comparison = load_and_compare(files, metric=metric, strictness=strictness)
    show(comparison, output_format="json" if as_json else output_format, is_strict=strict)
    raise typer.Exit(int(comparison.exit_code(is_strict=strict)))


def load_and_compare(files: list[Path], *, metric: str, strictness: Strictness) -> Comparison:
    """Read result files and compare each with the first."""
    from bench.analysis.comparison.compare_files import compare as compare_rows
    from bench.analysis.comparison.metrics import find_metric
    from bench.cli.output import print_note
    from bench.core.errors import UsageError
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


def show(comparison: Comparison, *, output_format: str, is_strict: bool) -> None:
    """Print a comparison in the format asked for."""
    from bench.analysis.comparison.documents import comparison_document
    from bench.cli.output import print_grids, print_json
    from bench.report.tables import compare_tables

    if output_format == "json":
        print_json(comparison_document(comparison, is_strict=is_strict))
        return
    if output_format == "github":
        typer.echo(compare_tables.github(comparison), nl=False)
        return
    is_markdown = output_format == "markdown"
    print_grids(
        compare_tables.grids(comparison, limit=None if is_markdown else compare_tables.MAX_SHOWN),
        lines=compare_tables.lines(comparison),
        is_markdown=is_markdown,
    )
