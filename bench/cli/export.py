"""`bench export`: result files in the formats of other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from bench.cli.options import ResultFiles
from bench.cli.output import print_note
from bench.core.errors import NothingMatchedError, UsageError, one_of

if TYPE_CHECKING:
    from bench.report.exports.figures import ExportedRows

FORMATS = ("pytest-benchmark", "bmf", "github-action-benchmark", "json")


def export(
    files: ResultFiles,
    to: Annotated[
        str | None, Option("--to", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File to write instead of stdout. For github-action-benchmark without "
            "--direction: the folder that gets bigger_is_better.json and smaller_is_better.json.",
        ),
    ] = None,
    direction: Annotated[
        str | None,
        Option(
            metavar="bigger|smaller",
            help="For github-action-benchmark: only figures of which the bigger (or smaller) is "
            "better, as one document.",
        ),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="The same as --to json.")] = False,
) -> None:
    """Write results for another tool; only usable trials (OK, WARN) become figures.

    A figure is the geometric mean over trials, with its 95 % interval where the format has a place
    for it. What gives no figure is counted on stderr. json keeps unusable rows with their status;
    the other formats have no place for them.
    """
    from bench.report.exports.figures import select
    from bench.results.reader import read_all
    from bench.results.whole_files import write_document

    chosen = _chosen(to, as_json=as_json)
    _check(chosen, output=output, direction=direction, files=files)
    selection = select(read_all(files, note=print_note))
    for note in selection.notes():
        print_note(note)
    if not selection.num_rows or (chosen != "json" and not selection.configurations):
        raise NothingMatchedError("no usable trial (OK or WARN) in the files given")
    for name, text in _documents(selection, to=chosen, direction=direction).items():
        if output is None:
            sys.stdout.write(text)
        else:
            write_document(output / name, text, with_folder=bool(name))
            print_note(f"wrote {output / name}")


def _chosen(to: str | None, *, as_json: bool) -> str:
    if as_json and to not in (None, "json"):
        raise UsageError(f"--json is the same as --to json; it does not go with --to {to}")
    chosen = "json" if as_json else to
    if chosen is None:
        raise UsageError(f"--to is missing; it is one of {', '.join(FORMATS)}")
    if chosen not in FORMATS:
        raise one_of("--to", chosen, list(FORMATS))
    return chosen


def _check(to: str, *, output: Path | None, direction: str | None, files: list[Path]) -> None:
    from bench.report.exports.history import GITHUB_FILES

    is_github = to == "github-action-benchmark"
    if direction is not None and not is_github:
        raise UsageError(f"--direction is for --to github-action-benchmark, not for {to}")
    if direction is not None and direction not in GITHUB_FILES:
        raise one_of("--direction", direction, list(GITHUB_FILES))
    is_folder = is_github and direction is None
    if output is None and is_folder:
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


def _documents(selection: ExportedRows, *, to: str, direction: str | None) -> dict[str, str]:
    """Each document by its file's name in the output folder; '' where the output is the file."""
    from bench.report.exports import history, pytest_benchmark

    if to == "github-action-benchmark":
        names = {direction: ""} if direction else history.GITHUB_FILES
        return {
            name: history.github_document(selection, direction=one) for one, name in names.items()
        }
    if to == "pytest-benchmark":
        for note in pytest_benchmark.notes(selection):
            print_note(note)
        return {"": pytest_benchmark.document(selection)}
    return {"": (history.bmf_document if to == "bmf" else history.json_document)(selection)}
