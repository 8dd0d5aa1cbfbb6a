"""`bench doctor`: what on this machine would spoil a measurement, and the command that fixes it."""

from typing import Annotated

import typer

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look for what would spoil a measurement here; changes nothing."""
    from dataclasses import asdict

    from bench.cli.output import print_json, result_console
    from bench.devices.doctor import findings

    found = findings()
    if as_json:
        print_json({"findings": [asdict(finding) for finding in found]})
        return
    console = result_console()
    if not found:
        console.print("nothing found")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("severity", "what", "why it spoils a measurement", "what to do")
    for finding in found:
        style = _STYLES[finding.severity]
        table.add_row(
            Text(finding.severity, style=style),
            Text(finding.what),
            Text(finding.why),
            Text(finding.fix),
        )
    console.print(table)
