"""What follows from the rows: the training gap, the roofline, and verdicts between files.

All of it is worked out by `bench.analysis`, as `bench gap` and `bench compare` do; here it is only
limited to a readable number of settings and put beside its panels.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.analysis.claims.claims_verdict import ClaimVerdict
from bench.analysis.comparison.comparison import Strictness, compare
from bench.analysis.comparison.verdicts import METRICS
from bench.analysis.gap.demand import Demand, setting_of
from bench.analysis.gap.gap_result import GapResult, Missing, measure_gap
from bench.core.units import counted
from bench.report.page.content import Prose, Section, section
from bench.report.page.evidence import Evidence, taking_turns
from bench.report.plots.plots_gap import (
    gap_plots,
    is_placeable,
    overview_plot,
    roofline_plots,
)
from bench.report.plots.plots_links import scaling_plots, slowdown_plots, swept
from bench.report.plots.plots_speed import compare_plots
from bench.report.tables import compare_tables, gap_tables
from bench.report.tables.claims_table import claims_grid
from bench.report.tables.gap_tables import apart, full_title
from bench.report.tables.links_tables import link_grids

MAX_SETTINGS = 24
"""Settings (both phases together) whose demands are worked out."""
MAX_LINES = 50


def settings_gap(evidence: Evidence) -> tuple[GapResult, int]:
    """Demands and gaps of a readable number of settings, and how many settings are left out."""
    # Several devices take no room where `measure_gap` would leave them out.
    stepped = [one for one in evidence.configurations if not one.is_served]
    alone = [one for one in stepped if not one.is_wide]
    pool = alone if any(one.used for one in alone) else stepped
    settings = list(dict.fromkeys(map(setting_of, pool)))
    chosen = taking_turns(settings, place=lambda setting: setting[0], limit=MAX_SETTINGS)
    rows = [row for one in pool if setting_of(one) in chosen for row in one.rows]
    return measure_gap(rows), len(settings) - len(chosen)


def gap(
    result: GapResult, *, num_hidden: int, num_files: int, command: Callable[[Missing], str]
) -> Section | None:
    """Training over inference; absent where no row is usable."""
    grids = gap_tables.grids(result)
    if not grids:
        return None
    lines = [] if result.gaps else ["No phase has both its halves, so there is no ratio to show."]
    lines += ["Trials of all files are taken together here."] if num_files > 1 else []
    wanted = [one for one in result.missing if command(one)]
    commands = list(map(command, wanted))
    missing = list(dict.fromkeys(gap_tables.missing_lines(wanted, commands=commands)))
    left_out = f"{counted(num_hidden, 'further setting')} left out; bench gap has all."
    return section(
        "gap",
        "Training against inference",
        overview_plot(result.gaps),
        gap_plots(result.gaps),
        Prose(lines=tuple(lines)),
        # What lies under the roofline has a section of its own.
        *(grid.without(gap_tables.ROOF_HEADS) for grid in grids),
        Prose(lines=tuple(missing[:MAX_LINES]), is_list=True),
        Prose(lines=(left_out,)) if num_hidden else None,
    )


def roofline(result: GapResult) -> Section | None:
    """Phases under their device's roofs; which cannot be placed, and why."""
    used = [demand for demand in result.demands if demand.num_trials]
    if not used:
        return None
    single = gap_tables.demand_grid([demand for demand in used if demand.trials.num_devices == 1])
    beside = [head for head in single.heads[2:] if head not in gap_tables.ROOF_HEADS]
    known = [row for row in single.rows if row[single.heads.index("FLOP/byte")]]
    placed = replace(single, rows=known, title="", notes=single.notes[-1:]).without(beside)
    shown = apart(used)
    lost = dict.fromkeys(
        f"{full_title(demand, shown=shown)} on {demand.device}: {_why(demand)}"
        for demand in used
        if not is_placeable(demand)
    )
    lines = ["Not placed:", *list(lost)[:MAX_LINES]] if lost else []
    lines += [f"and {len(lost) - MAX_LINES} more"] if len(lost) > MAX_LINES else []
    not_placed = Prose(lines=tuple(lines), is_list=True)
    return section("roofline", "Under the roofline", roofline_plots(used), placed, not_placed)


def _why(demand: Demand) -> str:
    needed = {
        "no formula for its work": demand.flops_per_item,
        "no formula for its memory traffic": demand.bytes_per_item,
        "no measured compute roof": demand.roof_flops_per_s,
        "no measured bandwidth roof": demand.roof_bytes_per_s,
        "no throughput": demand.throughput_per_s,
        "several devices, and roofs are those of one": demand.trials.num_devices == 1,
    }
    return ", ".join(words for words, it in needed.items() if not it) or "figures no device has"


def sweeps(evidence: Evidence) -> Section | None:
    """Slowdown over bandwidth, scaling over devices, and the tables of all that."""
    runs = swept(evidence.stepped)
    parts = (slowdown_plots(runs), scaling_plots(runs), *link_grids(runs)) if runs else ()
    return section("sweeps", "Several devices and links", *parts)


def comparison(evidence: Evidence, *, strictness: Strictness) -> Section | None:
    """Verdicts on time of each later file against the first; absent with one file."""
    if len(evidence.sources) < 2:
        return None
    files = [(source.label, source.rows) for source in evidence.sources]
    found = compare(files, metric=METRICS["time"], strictness=strictness)
    first, *others = compare_tables.lines(found)
    return section(
        "comparison",
        "Compared with the first file",
        Prose(lines=(f"{found.labels[0]} is the baseline: {first}.",)),
        compare_plots(found),
        *compare_tables.grids(found),
        Prose(lines=tuple(others), is_list=True),
    )


def claims(verdicts: Sequence[ClaimVerdict]) -> Section:
    """The table of published claims, with a line on what the words mean."""
    meaning = (
        "Computed from measured rows, the catalogue, the link model and published figures; "
        "HOLDS WHEN names the circumstances found among the cases computed. "
        "What a verdict rests on is in the last column."
    )
    return section("claims", "Published claims", Prose(lines=(meaning,)), claims_grid(verdicts))
