"""Rows of several devices and modelled links: which they are, and what their curves are called.

A curve has one mode. One device joins a curve only when it was measured in that mode.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.identity import LAYOUT
from bench.analysis.trials.titles import mitigations_of


def swept(shown: Sequence[Trials]) -> list[Trials]:
    """Runs over several devices or a modelled link, and one device on the same terms.

    One device may be there in another mode; nothing is divided by it then.
    """
    terms = {run.terms(but=LAYOUT) for run in shown if run.is_wide}
    return [run for run in shown if run.terms(but=LAYOUT) in terms]


def kind_of(run: Trials, *, with_link: bool) -> str:
    """How a curve is called: over devices (`with_link`) or over links, and what it shares."""
    row = run.first
    layout = str(row.get("layout") or "")
    parts = [
        "" if with_link else f"x{run.num_devices}",
        str(row.get("parallel") or ""),
        run.link if with_link else layout if " x " in layout else "",
        mitigations_of(row),
        str(row.get("device_name") or row["device"]),
        run.file,
        "" if run.mode == "real" else f"[{run.mode}]",
    ]
    return " ".join(part for part in parts if part)


def unit_of(run: Trials) -> str:
    """What an item is."""
    return str(run.first.get("items_unit") or "item")
