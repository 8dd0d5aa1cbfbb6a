"""Where a step goes: compute, exposed communication, and what stands behind the modelled times."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.links import LinkRun
from bench.analysis.scaling import efficiency, single_runs
from bench.core.units import format_bytes, format_duration
from bench.report.page.content import without_blank_columns
from bench.report.tables.grid import Grid
from bench.report.tables.links_cells import AGAINST, WHO, efficiency_text, ms, who
from bench.report.tables.quantities import share, span

DISAGREES_FRAC = 0.03
"""Over this, simulation and emulation of one trace disagree, as the row's reason says too."""
_ENOUGH_MOVED = 0.95
"""Below this share of its memory traffic, contention slows less than it should."""


def time_grid(runs: Sequence[LinkRun], *, group: Sequence[LinkRun], name: str) -> Grid:
    """Compute, communication and what of it shows; how near that is to perfect scaling."""
    singles = single_runs(group)
    found = [efficiency(run, singles=singles) for run in runs]
    rows = [
        (
            *who(run),
            ms(run, "compute_step_ms"),
            ms(run, "comm_exposed_ms"),
            _total(run),
            run.word("overlap"),
            efficiency_text(reached),
        )
        for run, reached in zip(runs, found, strict=True)
    ]
    heads = (*WHO, "compute>", "exposed>", "communication (band)>", "overlap",
             "efficiency [95 %]>")  # fmt: skip
    notes = [AGAINST[kind] for kind in dict.fromkeys(one.against for one in found if one)]
    if any(run.mean("comm_exposed_ms") is not None for run in runs):
        notes.insert(0, "exposed: the part of communication that compute waited for")
    return _filled(heads, rows, title=f"Where a step goes: {name}", notes=notes)


def model_grid(runs: Sequence[LinkRun], *, name: str) -> Grid:
    """What the model says beside the run: bytes, where times come from, simulation, stragglers."""
    rows = [
        (
            *who(run),
            _bytes(run),
            run.word("link_method"),
            _agreement(run),
            _contended(run),
            ms(run, "straggler_step_ms"),
            share(run.mean("bubble_frac")),
        )
        for run in runs
    ]
    heads = (*WHO, "bytes/step>", "link's times by", "simulation off by>",
             "with contention>", "with stragglers>", "bubble>")  # fmt: skip
    notes = []
    if any(run.mean("simulated_error_frac") is not None for run in runs):
        notes.append(
            "simulation off by: event simulation over the step's own trace against the step as "
            f"it ran; over {DISAGREES_FRAC * 100:.0f} % the two disagree"
        )
    if any(run.mean("contended_step_ms") is not None for run in runs):
        notes.append(
            "with contention: median step when communication also takes compute units and memory "
            "traffic; it is part of the bracket"
        )
    if any(run.mean("straggler_step_ms") is not None for run in runs):
        notes.append(
            "with stragglers: expected step when every device draws its compute from the measured "
            "steps and all wait for the slowest"
        )
    return _filled(heads, rows, title=f"Behind the model: {name}", notes=notes)


def _filled(
    heads: tuple[str, ...], rows: list[tuple[str, ...]], *, title: str, notes: list[str]
) -> Grid:
    """Table without blank columns; without lines when it says nothing but who they are."""
    said = rows if any(any(row[len(WHO) :]) for row in rows) else []
    return without_blank_columns(Grid(heads=heads, rows=said, title=title, notes=tuple(notes)))


def _total(run: LinkRun) -> str:
    low_ms, high_ms = run.mean("comm_low_ms"), run.mean("comm_high_ms")
    told = ms(run, "comm_total_ms")
    if not told or low_ms is None or high_ms is None or low_ms == high_ms:
        return told
    return f"{told} ({span(low_ms * 1e-3, high_ms * 1e-3, format_duration)})"


def _bytes(run: LinkRun) -> str:
    num_bytes = run.mean("comm_bytes")
    return "" if num_bytes is None else format_bytes(num_bytes)


def _contended(run: LinkRun) -> str:
    told, units = ms(run, "contended_step_ms"), run.mean("contention_units")
    if not told or not units:
        return told
    moved = run.mean("contention_moved_frac")
    traffic = "" if moved is None or moved > _ENOUGH_MOVED else f", {share(moved)} of its traffic"
    return f"{told} ({units:.0f} units{traffic})"


def _agreement(run: LinkRun) -> str:
    error = run.mean("simulated_error_frac")
    if error is None:
        return ""
    told = f"{error * 100.0:+.1f} %"
    return f"{told}, disagrees" if abs(error) > DISAGREES_FRAC else told
