"""Rows of several devices and modelled links: which they are, and what their curves are called.

A curve has one mode. One device joins a curve only when it was measured in that mode.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.links import LinkRun
from bench.report.page.evidence import Shown
from bench.report.tables.run_table import remedies_of


def is_wide(one: Shown) -> bool:
    """Whether several devices or a modelled link took part."""
    return run_of(one).is_wide


def run_of(one: Shown) -> LinkRun:
    """The configuration as `bench.analysis.links` reads it."""
    return LinkRun(rows=one.line.rows, file=one.file)


def swept(shown: Sequence[Shown]) -> list[LinkRun]:
    """Runs over several devices or a modelled link, and one device on the same terms.

    One device may be there in another mode; nothing is divided by it then.
    """
    runs = [run_of(one) for one in shown]
    terms = {(run.file, *run.terms[2:]) for run in runs if run.is_wide}
    return [run for run in runs if (run.file, *run.terms[2:]) in terms]


def kind_of(run: LinkRun, *, with_link: bool) -> str:
    """How a curve is called: over devices (`with_link`) or over links, and what it shares."""
    row = run.first
    layout = str(row.get("layout") or "")
    parts = [
        "" if with_link else f"x{run.num_devices}",
        str(row.get("parallel") or ""),
        run.link if with_link else layout if " x " in layout else "",
        remedies_of(row),
        str(row.get("device_name") or row["device"]),
        run.file,
        "" if run.mode == "real" else f"[{run.mode}]",
    ]
    return " ".join(part for part in parts if part)


def unit_of(run: LinkRun) -> str:
    """What an item is."""
    return str(run.first.get("items_unit") or "item")
