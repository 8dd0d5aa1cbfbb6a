"""`bench doctor`: what on this machine would spoil a measurement, and the command that fixes it."""

from dataclasses import asdict

from bench.cli.options import AsJson
from bench.cli.output import print_grids, print_json


def doctor(as_json: AsJson = False) -> None:
    """Look for what would spoil a measurement here; changes nothing."""
    from bench.devices.doctor.all_findings import findings
    from bench.report.tables.cells import verdict
    from bench.report.tables.grid import Grid

    found = findings()
    if as_json:
        print_json({"findings": [asdict(finding) for finding in found]})
        return
    if not found:
        print("nothing found")
        return
    rows = [(verdict(one.severity), one.what, one.why, one.fix) for one in found]
    heads = ("severity", "what", "why it spoils a measurement", "what to do")
    print_grids([Grid(heads=heads, rows=rows)])
