"""`bench export`: result files in the formats of other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.report.exports.selection import Selection

FORMATS = ("pytest-benchmark", "bmf", "github-action-benchmark", "json")


def export(
    files: Annotated[list[Path], typer.Argument(help="Result files.", metavar="CSV...")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File to write instead of stdout. For github-action-benchmark without "
            "--direction: the folder that gets bigger_is_better.json and smaller_is_better.json.",
        ),
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(
            metavar="bigger|smaller",
            help="For github-action-benchmark: only figures of which the bigger (or smaller) is "
            "better, as one document.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --to json.")] = False,
) -> None:
    """Write results for another tool; only usable trials (OK, WARN) become figures.

    A figure is the geometric mean over trials, with its 95 % interval where the format has a place
    for it. What gives no figure is counted on stderr. json keeps unusable rows with their status;
    the other formats have no place for them.
    """
    from bench.cli.output import print_note
    from bench.core.errors import NothingMatchedError
    from bench.report.exports.selection import select
    from bench.results.reader import read_rows

    chosen = _chosen(to, as_json=as_json)
    _check(chosen, output=output, direction=direction, files=files)
    selection = select([row for path in files for row in read_rows(path, note=print_note)])
    for note in selection.notes():
        print_note(note)
    if not selection.rows or (chosen != "json" and not selection.usable):
        raise NothingMatchedError("no usable trial (OK or WARN) in the files given")
    if chosen == "github-action-benchmark" and direction is None:
        assert output is not None
        _write_both(selection, folder=output)
        return
    text = _document(selection, to=chosen, direction=direction)
    if output is None:
        sys.stdout.write(text)
    else:
        _write(output, text)


def _chosen(to: str | None, *, as_json: bool) -> str:
    from bench.core.errors import UsageError, one_of

    if as_json and to not in (None, "json"):
        raise UsageError(f"--json is the same as --to json; it does not go with --to {to}")
    if as_json:
        return "json"
    if to is None:
        raise UsageError(f"--to is missing; it is one of {', '.join(FORMATS)}")
    if to not in FORMATS:
        raise one_of("--to", to, list(FORMATS))
    return to


def _check(to: str, *, output: Path | None, direction: str | None, files: list[Path]) -> None:
    from bench.core.errors import UsageError, one_of
    from bench.report.exports.github_action_benchmark import FILES

    if direction is not None and to != "github-action-benchmark":
        raise UsageError(f"--direction is for --to github-action-benchmark, not for {to}")
    if direction is not None and direction not in FILES:
        raise one_of("--direction", direction, list(FILES))
    is_folder = to == "github-action-benchmark" and direction is None
    if is_folder and output is None:
        raise UsageError(
            "github-action-benchmark wants one file for each direction: give -o FOLDER for both, "
            "or --direction bigger or smaller for one"
        )
    if output is None:
        return
    if is_folder and output.is_file():
        raise UsageError(f"-o {output} is a file; without --direction it must be a folder")
    if not is_folder and output.is_dir():
        raise UsageError(f"-o {output} is a folder; give the name of a file")
    if any(path.exists() and output.exists() and output.samefile(path) for path in files):
        raise UsageError(f"-o {output} is one of the result files; give another name")


def _document(selection: Selection, *, to: str, direction: str | None) -> str:
    from bench.cli.output import print_note
    from bench.report.exports import bmf, github_action_benchmark, json_document, pytest_benchmark

    match to:
        case "pytest-benchmark":
            for note in pytest_benchmark.notes(selection):
                print_note(note)
            return pytest_benchmark.document(selection)
        case "bmf":
            return bmf.document(selection)
        case "github-action-benchmark":
            assert direction is not None
            return github_action_benchmark.document(selection, direction=direction)
        case _:
            return json_document.document(selection)


def _write_both(selection: Selection, *, folder: Path) -> None:
    from bench.core.errors import DataError
    from bench.report.exports.github_action_benchmark import FILES, document

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error.strerror}") from error
    for direction, name in FILES.items():
        _write(folder / name, document(selection, direction=direction))


def _write(path: Path, text: str) -> None:
    from bench.cli.output import print_note
    from bench.core.errors import DataError
    from bench.results.sidecar import write_whole

    if "\0" in str(path):
        raise DataError(f"{str(path)!r}: cannot be written: a NUL is in the name")
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    print_note(f"wrote {path}")
