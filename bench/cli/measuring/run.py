"""`bench run`: measure workloads on a device, and show their rows as tables.

Whatever was chosen automatically is given before anything is measured, and how work is spread with
the mode in words. Progress meanwhile is `bench.run.progress`.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from bench.cli.output import is_interactive, print_grids, print_json, print_note, print_reason
from bench.core.errors import ExitCode, UsageError
from bench.core.paths import short_path
from bench.core.units import counted, format_duration, plural
from bench.run.planning.request import FLAGS, Flag

if TYPE_CHECKING:
    from bench.results.schema import Row
    from bench.run.planning.plan import Plan, Planned
    from bench.run.planning.request import RunRequest
    from bench.run.runner import Runner

MODE_WORDS = {
    "real": "real ranks on the link that is there",
    "throttled": "real ranks, held to the modelled link",
    "emulated": "one real rank, the others and the link modelled",
    "simulated": "one real rank's compute, replayed on the modelled link",
}
_shown = partial(Option, rich_help_panel="Rows, and what is printed")


def run(
    context: typer.Context,
    out: Annotated[Path, _shown(help="folder for the result file")] = Path("results"),
    resume: Annotated[
        str | None, _shown(help="go on with a run: its file, its id, or last (in --out)")
    ] = None,
    dry_run: Annotated[
        bool, _shown("--dry-run", help="show what would run, and run nothing")
    ] = False,
    quiet: Annotated[
        bool, _shown("--quiet", "-q", help="print only the result file's path")
    ] = False,
    as_json: Annotated[bool, _shown("--json", help="print one JSON document")] = False,
    **flags: Any,
) -> None:
    """Measure workloads on a device; rows go to a CSV file, a table to stdout."""
    from bench.results.whole_files import check_folder
    from bench.run import session

    note = (lambda _text: None) if quiet else print_note
    if resume is not None:
        _refuse_other_flags(context)
        begun = session.resume(resume, folder=out, note=print_note)
        if begun.is_over:
            note(f"nothing is left to do: run {begun.store.run_id} has all its trials")
    else:
        if not dry_run:
            check_folder(out)
        plan, inspection = session.prepare(_request(flags), note=note)
        if dry_run:
            _show_plan(plan, as_json=as_json)
            return
        begun = session.begin(plan, inspection, folder=out, note=note)
    begun.shows_tracebacks = bool(context.obj)
    code = measure_begun(begun, note=note, quiet=quiet, as_json=as_json)
    if code == ExitCode.INTERRUPTED:
        path = begun.store.path
        print_note(f"bench: interrupted; go on with: bench run --resume {shlex.quote(str(path))}")
    if code:
        raise typer.Exit(code)


def measure_begun(begun: Runner, *, note: Callable[[str], None], quiet: bool, as_json: bool) -> int:
    """Run what is left to its end, print its rows, close the store; returns the exit code."""
    try:
        return _measured(begun, note=note, quiet=quiet, as_json=as_json)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except Exception as error:
        more = "" if begun.facts.command else "; --resume goes on with them"
        error.add_note(f"rows so far are in {begun.store.path}{more}")
        raise
    finally:
        begun.store.close()


def declare_flags(verb: Callable[..., None], flags: Iterable[Flag]) -> None:
    """Give a verb an option for each of these flags, in place of its `**flags`."""
    signature = inspect.signature(verb, eval_str=True)
    *own, _ = signature.parameters.values()
    options = [
        inspect.Parameter(
            flag.parameter,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if flag.kind.given is bool else None,
            annotation=Annotated[
                flag.kind.given if flag.kind.given is bool else flag.kind.given | None,
                Option(*flag.names, help=flag.help, rich_help_panel=flag.group),
            ],
        )
        for flag in flags
    ]
    verb.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    verb.__annotations__ = {one.name: one.annotation for one in [*own, *options]}


declare_flags(run, FLAGS.values())


def _request(flags: dict[str, Any]) -> RunRequest:
    """Read the flags; under torchrun the ranks are those that it started, and real."""
    import os

    from bench.run.launching.torchrun import as_ranks, world_of
    from bench.run.planning.request import read_flags

    request, world = read_flags(flags), world_of(os.environ)
    return request if world is None else as_ranks(request, world=world)


def _refuse_other_flags(context: typer.Context) -> None:
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        is_given = source is not None and source.name == "COMMANDLINE"
        if is_given and name not in ("resume", "out", "quiet", "as_json"):
            raise UsageError(
                f"--resume goes on with the stored plan and takes no {parameter.opts[0]}; "
                "only --out, --quiet and --json go with it"
            )


def _measured(begun: Runner, *, note: Callable[[str], None], quiet: bool, as_json: bool) -> int:
    """Run what is left, print its rows, and return the exit code."""
    import os

    from bench.run.launching.torchrun import world_of
    from bench.run.progress import progress_of
    from bench.run.session import exit_code, record_profiles, why_invalid

    # A program's own output leaves no line for a bar.
    has_bar = is_interactive() and not begun.facts.command
    progress = progress_of(quiet=quiet, has_bar=has_bar)
    for text in [] if quiet else _choices_of(begun.plan):
        progress.note(text)
    ended = begun.run(progress)
    code, path = int(exit_code(ended, begun.plan)), begun.store.path
    if as_json:
        print_json(
            {
                "path": str(path),
                "exit_code": code,
                "interrupted": ended.was_interrupted,
                "problem": ended.problem,
                "notes": begun.plan.notes,
                "rows": ended.rows,
            }
        )
    elif quiet:
        print(path)
    else:
        show_result(ended.rows, path=path, notes=begun.plan.notes)
    if not (ended.was_interrupted or ended.problem) and begun.plan.wants_profiles:
        record_profiles(begun, note=note)
    if ended.problem is not None:
        print_reason(ended.problem)
    elif code == ExitCode.INVALID and world_of(os.environ) is not None:
        print_reason(why_invalid(ended))  # torchrun prints a failure of a rank below it
    return code


def _choices_of(plan: Plan) -> list[str]:
    """Say what was chosen automatically, one line per distinct choice."""
    from bench.run.progress import batch_text

    lines = [
        f"{planned.config.name}: {_place_of(planned)}{batch_text(planned, ', batch {}')}"
        for planned in plan.planned
        if not planned.is_unseen
    ]
    return [*dict.fromkeys(lines), *_spread_lines(plan), *plan.notes]


def _place_of(planned: Planned) -> str:
    config = planned.config
    if config.server is not None:
        return f"the server at {config.server.address}"
    size = "" if config.script else f"size {config.size or '-'} ({planned.size_choice}), "
    return f"{config.device}, {size}{config.dtype}"


def _spread_lines(plan: Plan) -> list[str]:
    """Say how work is spread: one line for each strategy and mode, and what is odd about it."""
    from bench.emulate.pipeline import pipeline_note

    layouts = list(dict.fromkeys(planned.config.layout for planned in plan.planned))
    spread = [layout for layout in layouts if not layout.is_single]
    is_fake = plan.planned[0].config.device == "fake"
    lines = []
    for strategy, mode in dict.fromkeys((one.strategy, one.mode) for one in spread):
        alike = [one for one in spread if (one.strategy, one.mode) == (strategy, mode)]
        devices = ", ".join(dict.fromkeys(str(one.devices) for one in alike))
        devices += f" {plural('device', max(one.devices for one in alike))}"
        links = ", ".join(dict.fromkeys(one.link for one in alike if one.link))
        over = f" over {links}" if links else ""
        how = "simulated: the fake device's time" if is_fake else f"{mode}: {MODE_WORDS[mode]}"
        lines.append(f"{strategy} on {devices}{over} [{how}]")
    notes = [pipeline_note(layout) for layout in spread if layout.strategy == "pp"]
    return [*lines, *dict.fromkeys(note for note in notes if note is not None)]


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what would run; nothing has."""
    if as_json:
        print_json(asdict(plan))
        return
    for line in _choices_of(plan):
        print(line)
    print(
        f"{counted(len(plan.planned), 'configuration')}, {plan.min_trials} to {plan.max_trials} "
        f"trials each, profile {plan.profile}, budget {format_duration(plan.budget_s)}"
    )


def show_result(rows: Sequence[Row], *, path: Path, notes: Sequence[str] = ()) -> None:
    """Print the tables of a run, what is odd about it or left out of it, and its file."""
    from bench.analysis.trials.configuration import gather
    from bench.report.tables.links_tables import link_grids
    from bench.report.tables.offered_table import offered_grid
    from bench.report.tables.run_table import caption_of, data_lines, reason_lines, run_grid
    from bench.results.beside_rows import failures_path

    found = gather(rows)
    served = [one for one in found if one.is_served]
    stepped = [one for one in found if not one.is_served]
    # Modelled devices have tables of their own.
    modelled = [one for one in stepped if one.is_wide and one.mode != "real"]
    others = [one for one in stepped if one not in modelled]
    grids = [run_grid(others)] if others else []
    grids += [*link_grids(stepped, has_model=False), *([offered_grid(served)] if served else [])]
    known = {caption_of(one) for one in (*others, *served)}
    devices = dict.fromkeys(caption_of(one) for one in modelled)
    lines = [f"device: {device}" for device in devices if device not in known]
    lines += [*data_lines(found), *reason_lines(rows), *notes]
    if (failures := failures_path(path)).exists():
        lines.append(f"tracebacks: {short_path(failures)}")
    lines.append(f"rows: {short_path(path)}")
    print_grids(grids, lines=lines)
