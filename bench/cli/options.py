"""Options and arguments that several verbs share, worded once.

Only what verbs understand alike: one that knows another format, or other files, says so itself.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Option
from typer.core import TyperCommand, TyperGroup

from bench.core.errors import BenchError, UsageError, one_of
from bench.core.paths import split_phase

FLAG_ERROR: Any = BadParameter.__mro__[2]
"""Common base of typer's errors about flags, which typer does not export by name."""
FORMATS = ("table", "markdown", "json")


def _with_nets_of_domains(texts: list[str] | None) -> list[str] | None:
    """Write a domain as itself and its nets, of which files may hold any: vision|face|..."""
    if not texts:
        return texts
    from bench import discovery

    domain_of = {name: discovery.load(name).cls.domain for name in discovery.names()}

    def written(text: str) -> str:
        name, phase = split_phase(text.strip())
        nets = [name, *(net for net, domain in domain_of.items() if domain == name)]
        return "|".join(net if phase is None else f"{net}:{phase}" for net in nets)

    return [written(one) for text in texts for one in text.split(",")]


ResultFiles = Annotated[list[Path], Argument(help="Result files.", metavar="CSV...")]
Workloads = Annotated[
    list[str] | None,
    Option(
        "--workload",
        "-w",
        help="Only these of the files: imaging, imaging:train, llm-*, or a domain such as medical.",
        callback=_with_nets_of_domains,
    ),
]
To = Annotated[str | None, Option(help="Chips of the catalogue, such as h20,l4; or all.")]
SizeFor = Annotated[
    str | None,
    Option(
        help="Target: 'imaging-infer < 30s', 'llm-train 1e9 tokens/day', '... in 7 days', or "
        "'imaging-infer 800 volumes/day < 10min', where items wait."
    ),
]
OutputFormat = Annotated[str, Option("--format", help="table, markdown or json.")]
Strict = Annotated[bool, Option("--strict", help="Exit with 3 when anything stays undecided.")]
FailOn = Annotated[
    str | None,
    Option(metavar="PERCENT", help="Smallest change that matters (default: by metric and device)."),
]
Out = Annotated[Path, Option(help="Folder for the result files.")]
AsJson = Annotated[bool, Option("--json", help="Print one JSON document.")]


def chosen_format(output_format: str, *, as_json: bool, allowed: tuple[str, ...] = FORMATS) -> str:
    """Return what --format and --json ask for; `UsageError` for a format that is not known."""
    if output_format not in allowed:
        raise one_of("--format", output_format, list(allowed))
    return "json" if as_json else output_format


def _write_groups(formatter: Any, groups: dict[str, list[tuple[str, str]]]) -> None:
    for title, records in groups.items():
        with formatter.section(title):
            formatter.write_dl(records)


class Verbs(TyperGroup):
    """The verbs, listed in help by what they are for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs, each under the title of its group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            title = getattr(command, "rich_help_panel", None) or "Commands"
            groups.setdefault(title, []).append((name, command.get_short_help_str(limit=120)))
        _write_groups(formatter, groups)


def _expanded(value: Any, *, what: str) -> Any:
    from bench.core.paths import user_path

    if isinstance(value, list | tuple):
        return [_expanded(one, what=what) for one in value]
    return user_path(str(value), what=what)


class Verb(TyperCommand):
    """A verb whose help lists flags by subject, and names the environment's rule in one line.

    It expands ~ in each of its paths: a shell leaves it as it is in --out=~/results, and so does
    what sets a variable for a job.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the flags, each from the variable of its name where it is not typed."""
        for parameter in self.params:
            if parameter.param_type_name == "option":
                parameter.envvar = _variable(ctx, max(parameter.opts, key=len))
        try:
            return super().parse_args(ctx, args)
        except FLAG_ERROR as error:
            raise UsageError(_with_variables(error.format_message(), ctx=ctx)) from error

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; what it refuses names the variable that it is from."""
        try:
            for parameter in self.params:
                value = ctx.params.get(parameter.name)
                if parameter.type.name == "path" and value:
                    flag = parameter.human_readable_name.removesuffix("...")
                    if parameter.param_type_name == "option":
                        flag = max(parameter.opts, key=len)
                    ctx.params[parameter.name] = _expanded(value, what=flag)
            return super().invoke(ctx)
        except BenchError as error:
            error.args = (_with_variables(str(error), ctx=ctx),)
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and flags, each under the title of its group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            parameter.show_envvar = False  # type: ignore[attr-defined]
            title = "Arguments" if parameter.param_type_name == "argument" else "Options"
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = getattr(parameter, "rich_help_panel", None) or title
                groups.setdefault(title, []).append(record)
        _write_groups(formatter, groups)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Name the rule of the environment's variables."""
        formatter.write_paragraph()
        name = _variable(ctx, "--flag")
        formatter.write_text(f"Each flag can be set in the environment, as {name}.")


def _variable(ctx: Any, flag: str) -> str:
    """Name the variable of a verb's flag: BENCH_RUN_BUCKET_MIB of --bucket-mib."""
    return f"{ctx.auto_envvar_prefix}_{flag.removeprefix('--')}".replace("-", "_").upper()


def _with_variables(said: str, *, ctx: Any) -> str:
    """Add to a refusal the variables of the environment whose flag or value it names."""
    named = []
    for parameter in ctx.command.params:
        source, variable = ctx.get_parameter_source(parameter.name), parameter.envvar
        if source is not None and source.name == "ENVIRONMENT" and variable not in said:
            flag = re.search(rf"{max(parameter.opts, key=len)}(?![\w-])", said)
            values = re.split(r"[\s,=]+", os.environ[variable])
            named += [variable] if flag or any(repr(one) in said for one in values) else []
    return f"{said} (set by {', '.join(named)})" if named else said
