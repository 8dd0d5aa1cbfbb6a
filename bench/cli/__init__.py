"""The command line: one file per verb, thin; heavy libraries come in inside a verb."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from bench import __version__
from bench.cli import claims, compare, data, devices, export, gap, project, report
from bench.cli.listing.verb import list_
from bench.cli.measuring import ab, measure_link, run, wrap
from bench.cli.options import FLAG_ERROR, Verb, Verbs
from bench.cli.outermost import TRACEBACK_FLAG, exit_code_of, supply_surroundings
from bench.core.errors import UsageError
from bench.core.interrupts import as_interrupts

app = typer.Typer(
    name="bench",
    cls=Verbs,
    help="Benchmark real training and inference on whatever accelerator is present.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts three times as fast
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "BENCH"},
)


def _print_version(value: bool) -> None:
    if value:
        print(f"bench {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print version"),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option(TRACEBACK_FLAG, help="print tracebacks, those of failed trials too"),
    ] = False,
) -> None:
    pass


_VERBS: dict[str, dict[str, Callable[..., None]]] = {
    "Measure": {
        "run": run.run,
        "wrap": wrap.wrap,
        "ab": ab.ab,
        "calibrate": ab.calibrate,
        "measure-link": measure_link.measure_link,
    },
    "Look": {"list": list_, "devices": devices.devices, "doctor": devices.doctor},
    "Judge": {
        "compare": compare.compare,
        "gap": gap.gap,
        "report": report.report,
        "export": export.export,
    },
    "Study": {"project": project.project, "claims": claims.claims},
}
for _group, _verbs in _VERBS.items():
    for _name, _verb in _verbs.items():
        # What follows the first word of a program is the program's, flags among it.
        _settings = {"allow_interspersed_args": _name != "wrap"}
        app.command(_name, cls=Verb, rich_help_panel=_group, context_settings=_settings)(_verb)
app.add_typer(
    data.app, name="data", help="Make data sets to try --data with.", rich_help_panel="Look"
)


_SPREAD_VERBS = (["run"], ["measure-link"])
"""Verbs that every rank under torchrun takes part in."""


def _with_quoted_flags(words: list[str]) -> list[str]:
    """Keep an arm's flags, one word in quotes, from being read as flags of `ab` itself."""

    def is_arm(word: str) -> bool:
        return word.startswith(("--workload", "-w")) or (word.startswith("-") and " " in word)

    has_arms = words[:1] in (["ab"], ["calibrate"])
    return [f" {word}" if has_arms and is_arm(word) else word for word in words]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; a user's mistake is one line on stderr and an exit code.

    Under torchrun rank 0 runs it, and the other ranks take part in what rank 0 measures.
    """
    given = sys.argv[1:] if arguments is None else arguments
    shows_traceback = TRACEBACK_FLAG in given or os.environ.get("BENCH_DEBUG", "0") not in ("", "0")
    # It may stand anywhere, but for flags of a wrapped program.
    is_wrapped = next((word for word in given if not word.startswith("-")), "") == "wrap"
    words = [word for word in given if is_wrapped or word != TRACEBACK_FLAG]
    words = _with_quoted_flags(words)

    def run_verb() -> int:
        return exit_code_of(lambda: _ended(words, shows_traceback), shows_traceback=shows_traceback)

    def take_part() -> int:
        supply_surroundings()
        if "TORCHELASTIC_USE_AGENT_STORE" not in os.environ or words[:1] not in _SPREAD_VERBS:
            return run_verb()
        from bench.run.launching.launch import as_rank

        return as_rank(run_verb)

    with as_interrupts():
        return exit_code_of(take_part, shows_traceback=shows_traceback)


def _ended(words: list[str], shows_traceback: bool) -> int:
    try:
        result = app(args=words, standalone_mode=False, obj=shows_traceback)
    except FLAG_ERROR as error:
        raise UsageError(error.format_message()) from error
    return result if isinstance(result, int) else 0
