"""What a device carries when requests come by themselves: who was in time, at which rate."""

from bench.analysis.offered_load import offered_loads
from bench.report.page.content import Section, section
from bench.report.page.evidence import Evidence
from bench.report.plots.plots_offered import offered_plots
from bench.report.tables.offered_table import offered_grid


def offered(evidence: Evidence) -> Section | None:
    """Served runs; absent where no request came by itself."""
    served = [one for one in evidence.shown if one.is_served]
    if not served:
        return None
    grid = offered_grid(served, has_files=len(evidence.sources) > 1)
    return section(
        "served", "When requests come by themselves", offered_plots(offered_loads(served)), grid
    )
