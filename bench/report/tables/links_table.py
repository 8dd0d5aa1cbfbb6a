"""What the links cost, as tables: per workload and way of spreading it.

Each table is there only where it has a line: step and slowdown by link, where the time goes, what
stands behind the model, what workarounds win back, and scaling over devices. The mode is a badge
on every line, and no ratio crosses it. Every modelled step stands with its bracket. Losses are not
shown: those of virtual ranks would be made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.analysis.links import LinkRun, fastest_links, slowdown
from bench.analysis.remedies import find_remedies
from bench.analysis.scaling import families
from bench.core.nouns import MODES
from bench.core.units import format_duration
from bench.report.page.content import without_blank_columns
from bench.report.tables.grid import Grid
from bench.report.tables.links_cells import (
    WHO,
    bracket,
    is_host_bound,
    swept_among,
    trials,
    who,
    workload_title,
)
from bench.report.tables.links_gain import remedy_grid, scaling_grid
from bench.report.tables.links_time import model_grid, time_grid
from bench.report.tables.quantities import change, figure, ratio_span
from bench.report.tables.run_table import remedies_of

MAX_GRIDS = 24
"""Tables at once; further ones are counted."""

_BRACKET = (
    "bracket: from the fast end of the link's error band without contention to its slow end with "
    "full contention; that of a slowdown has both links at the same end"
)
_PAIRED = (
    "slower: each trial's step over the same steps without communication, so that how fast the "
    "machine was in a trial cancels"
)
_MEAN = "with a mitigation the step is the mean, since some steps may send nothing"
_HOST_BOUND = (
    "host_bound: where the device waits for the host, a link costs nothing until it takes longer "
    "than that wait; a larger --batch shows what it costs a busy device"
)
_VIRTUAL = "emulated: one device computes for real; the link and the other devices are modelled"


def link_grids(runs: Sequence[LinkRun]) -> list[Grid]:
    """Every table that these runs fill; none when all of them are one real device."""
    params = swept_among(runs)
    grids = [grid for group in _groups(runs) for grid in _tables(group, params) if grid.rows]
    grids = _said_once(grids)
    hidden = len(grids) - MAX_GRIDS
    if hidden <= 0:
        return grids
    last = grids[MAX_GRIDS - 1]
    note = f"{hidden} further tables are not shown; the CSV has all rows"
    return [
        *grids[: MAX_GRIDS - 1],
        replace(last, notes=(*last.notes, note)),
    ]


def _said_once(grids: Sequence[Grid]) -> list[Grid]:
    """Leave out of each table the notes that stand under an earlier one."""
    said: set[str] = set()
    found = []
    for grid in grids:
        notes = tuple(note for note in grid.notes if note not in said)
        said.update(notes)
        found.append(replace(grid, notes=notes))
    return found


def _groups(runs: Sequence[LinkRun]) -> list[list[LinkRun]]:
    """Runs of one workload that were spread the same way, with one device on the same terms.

    Modes share a table, which says the mode of each line.
    """
    groups: dict[tuple[str, ...], list[LinkRun]] = {}
    for run in runs:
        if run.is_wide:
            key = (run.file, *run.terms[2:], str(run.first.get("parallel") or ""))
            groups.setdefault(key, []).append(run)
    alone = [run for run in runs if not run.is_wide]
    return [
        [*(one for one in alone if (one.file, *one.terms[2:]) == key[:-1]), *group]
        for key, group in groups.items()
    ]


def _tables(group: Sequence[LinkRun], params: Sequence[str]) -> list[Grid]:
    wide = sorted((run for run in group if run.is_wide), key=_place)
    parts = (
        workload_title(wide[0], params),
        str(wide[0].first.get("parallel") or ""),
        wide[0].file,
    )
    name = ", ".join(part for part in parts if part)
    return [
        _step_grid(wide, name=name),
        time_grid(wide, group=group, name=name),
        model_grid(wide, name=name),
        remedy_grid(find_remedies(wide), name=name),
        scaling_grid(families(group), group=group, name=name),
    ]


def _place(run: LinkRun) -> tuple[int, int, str, float, str]:
    mode = MODES.index(run.mode) if run.mode in MODES else len(MODES)
    layout = "".join(run.facts(("layout",)))
    remedies = remedies_of(run.first)
    return mode, run.num_devices, layout + remedies, run.mean("comm_total_ms") or 0.0, run.link


def _step_grid(runs: Sequence[LinkRun], *, name: str) -> Grid:
    fastest = fastest_links(runs)
    leaders = {id(run) for run in fastest.values()}
    rows = []
    for run in runs:
        found = slowdown(run, fastest=fastest)
        told = "fastest" if id(run) in leaders else ""
        between = ""
        if found is not None and found.bracket is not None:
            between = ratio_span(*found.bracket, beside=found.ratio.value)
        rows.append(
            (
                *who(run),
                figure(run.step_s, format_duration),
                bracket(run),
                told if found is None else change(found.ratio),
                between,
                trials(run),
            )
        )
    heads = (*WHO, "step [95 %]>", "bracket>", "slower than the fastest [95 %]>",
             "its bracket>", "trials")  # fmt: skip
    notes = (
        *([_VIRTUAL] if any(run.mode == "emulated" for run in runs) else []),
        *([_PAIRED] if any(run.over_compute for run in runs) else []),
        *([_BRACKET] if any(run.bracket_s for run in runs) else []),
        *([_MEAN] if any(run.shows_mean for run in runs) else []),
        *([_HOST_BOUND] if any(map(is_host_bound, runs)) else []),
    )
    return without_blank_columns(Grid(heads=heads, rows=rows, title=f"Links: {name}", notes=notes))
