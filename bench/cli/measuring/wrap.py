"""`bench wrap`: measure any training script as it is, under any link."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from bench.cli.measuring.run import declare_flags, measure_begun
from bench.cli.outermost import TRACEBACK_FLAG
from bench.cli.output import print_note
from bench.run.planning.request import FLAGS

_shown = partial(Option, rich_help_panel="Rows, and what is printed")
_program = partial(Option, rich_help_panel="The program")


def wrap(
    command: Annotated[
        list[str] | None,
        Argument(help="behind --: the program as you would start it, python train.py"),
    ] = None,
    step: Annotated[
        str,
        _program(help="what ends a step: optimizer, forward, loader, or mark (bench.mark_step())"),
    ] = "optimizer",
    items_per_step: Annotated[
        int | None, _program(help="items of a step; default: what its data loaders yield")
    ] = None,
    to_end: Annotated[
        bool, _program("--to-end", help="let the program go on after what is measured")
    ] = False,
    name: Annotated[
        str | None, _program(help="name in rows, such as mynet-train; default: the file's")
    ] = None,
    out: Annotated[Path, _shown(help="folder for the result file")] = Path("results"),
    quiet: Annotated[
        bool, _shown("--quiet", "-q", help="print only the result file's path")
    ] = False,
    as_json: Annotated[bool, _shown("--json", help="print one JSON document")] = False,
    traceback: Annotated[bool, Option(TRACEBACK_FLAG, hidden=True)] = False,
    **flags: Any,
) -> None:
    """Measure a program of your own, unchanged, on one device or as one of several over a link."""
    from bench.results.whole_files import check_folder
    from bench.run.planning.request import read_flags
    from bench.run.planning.wrap_request import WrapRequest, check_start
    from bench.run.progress import progress_of
    from bench.run.wrap_session import begin_wrapped

    asked: Any = {"step": step, "items_per_step": items_per_step, "runs_to_end": to_end}
    request = WrapRequest(command=tuple(command or ()), name=name, run=read_flags(flags), **asked)
    check_start(request.command, os.environ)
    check_folder(out)
    progress = progress_of(quiet=quiet, has_bar=False)
    note = (lambda _text: None) if quiet else print_note
    note(f"looking at {request.program} (its first steps, not timed)")
    begun = begin_wrapped(request, folder=out, progress=progress)
    begun.shows_tracebacks = quiet  # else the program's output was on the screen
    code = measure_begun(begun, note=note, quiet=quiet, as_json=as_json)
    if code:
        raise typer.Exit(code)


_TAKEN = ("devices", "tp", "links", "mode", "threads", "profile", "trials", "budget_s", "timeout_s")
declare_flags(wrap, [FLAGS[name] for name in (*_TAKEN, "seed")])
