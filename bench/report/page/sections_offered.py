"""What a device carries when requests come by themselves: who was in time, at which rate."""

from bench.analysis.offered_load import law_of, offered_loads
from bench.report.page.content import Prose, Section, section
from bench.report.page.evidence import Evidence
from bench.report.plots.plots_offered import hours_plots, offered_plots
from bench.report.tables.offered_table import offered_grid


def offered(evidence: Evidence) -> Section | None:
    """Served runs; absent where no request came by itself."""
    served = [one for one in evidence.shown if one.is_served]
    if not served:
        return None
    grid = offered_grid(served, has_files=len(evidence.sources) > 1)
    days = [one for one in served if law_of(one.text("arrivals")).startswith("day:")]
    requests, notes = evidence.requests() if days else ([], [])
    labels = [source.label for source in evidence.sources]
    return section(
        "served",
        "When requests come by themselves",
        offered_plots(offered_loads(served)),
        hours_plots(days, requests, labels=labels),
        Prose(lines=tuple(notes), is_list=True),
        grid,
    )
