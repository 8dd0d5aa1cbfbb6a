"""Options and arguments that several verbs share, worded once.

Only what verbs understand alike: one that knows another format, or other files, says so itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("table", "markdown", "json")

ResultFiles = Annotated[list[Path], typer.Argument(help="Result files.", metavar="CSV...")]
OutputFormat = Annotated[str, typer.Option("--format", help="table, markdown or json.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def chosen_format(output_format: str, *, as_json: bool) -> str:
    """Return what --format and --json ask for; `UsageError` for a format that is not known."""
    from bench.core.errors import one_of

    if output_format not in FORMATS:
        raise one_of("--format", output_format, list(FORMATS))
    return "json" if as_json else output_format
