"""Several devices and the links between them: what a narrower link costs, and where it goes.

Absent where every row is one real device. Tables and panels rest on the same runs.
"""

from __future__ import annotations

from bench.report.page.content import Part, Section
from bench.report.page.evidence import Evidence
from bench.report.plots.plots_links import scaling_plots, slowdown_plots
from bench.report.plots.sweep_rows import swept
from bench.report.tables.links_tables import link_grids


def sweeps(evidence: Evidence) -> Section | None:
    """Slowdown over bandwidth, scaling over devices, step by link, and the tables of all that."""
    runs = swept(evidence.shown)
    if not runs:
        return None
    drawn = (slowdown_plots(runs), scaling_plots(runs))
    parts: list[Part] = [plots for plots in drawn if plots is not None]
    parts += link_grids(runs)
    return Section(name="sweeps", title="Several devices and links", parts=tuple(parts))
