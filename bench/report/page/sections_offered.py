"""What a device carries when requests come by themselves: who was in time, at which rate."""

from collections.abc import Mapping, Sequence

from bench.analysis.offered_load import law_of, offered_loads
from bench.analysis.trials.configuration import Trials, grouped
from bench.report.page.content import Prose, Section, section
from bench.report.page.evidence import Evidence
from bench.report.plots.plots_offered import hours_plots, offered_plots
from bench.report.plots.plots_speed import key_of
from bench.report.tables.offered_table import offered_grid
from bench.results.schema import Row


def offered(evidence: Evidence) -> Section | None:
    """Served runs; absent where no request came by itself."""
    served = [one for one in evidence.shown if one.is_served]
    if not served:
        return None
    labels = [source.label for source in evidence.sources]
    requests, notes = evidence.requests()
    kept = grouped(requests, lambda one: key_of(one, file=labels[int(str(one["file"]))]))

    def runs_of(one: Trials, row: Row) -> Sequence[Mapping[str, object]]:
        return kept.get(key_of(row, file=one.file or labels[0]), ())

    days = [one for one in served if law_of(one.text("arrivals")).startswith("day:")]
    return section(
        "served",
        "When requests come by themselves",
        offered_plots(offered_loads(served, runs_of=runs_of)),
        hours_plots(days, runs_of=runs_of),
        Prose(lines=tuple(notes) if days else (), is_list=True),
        offered_grid(served, has_files=len(evidence.sources) > 1),
    )
