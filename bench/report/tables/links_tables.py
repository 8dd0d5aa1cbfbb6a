"""What the links cost, as tables: per workload and way of spreading it.

Each table is there only where it has a line: step and slowdown by link, where the time goes, what
stands behind the model, what mitigations win back, and scaling over devices. The mode is a badge
on every line, and no ratio crosses it. Every modelled step stands with its bracket. Losses are not
shown: those of virtual ranks would be made up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.analysis.scaling import (
    Efficiency,
    Mitigated,
    efficiency,
    families,
    fastest_links,
    find_mitigated,
    over_compute,
    single_runs,
    slowdown,
)
from bench.analysis.trials.configuration import Trials
from bench.analysis.trials.identity import LAYOUT
from bench.analysis.trials.titles import PROGRAM, differing, mitigations_of, title_of
from bench.core.nouns import MODES
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell, Cell, figure, num_bytes, percent, quantity, seconds
from bench.report.tables.grid import Grid
from bench.report.tables.run_table import trials_text

MAX_GRIDS = 24
"""Tables at once; further ones are counted."""
DISAGREES_FRAC = 0.03
"""Over this, simulation and emulation of one trace disagree, as the row's reason says too."""
_ENOUGH_MOVED = 0.95
"""Below this share of its memory traffic, contention slows less than it should."""
_WHO = ("link", "mode", "devices", "layout", "with")
_NAMES = _WHO[2:]
_AGAINST = {
    "one device": "of one device: items per second and device over those of one device",
    "compute": (
        "of compute: the step without communication over the whole step, because one device was "
        "not measured in the same mode; what smaller pieces of work lose is not in it"
    ),
}
"""What an efficiency is a share of."""
_VIRTUAL = "emulated: one device computes for real; the link and the other devices are modelled"
_PAIRED = (
    "slower: than over the fastest link, by each trial's step over the same steps without "
    "communication, so that how fast the machine was in a trial cancels"
)
_BRACKET = (
    "bracket: from the fast end of the link's error band without contention to its slow end with "
    "full contention; that of a slowdown has both links at the same end"
)
_MEAN = "with a mitigation the step is the mean, since some steps may send nothing"
_HOST_BOUND = (
    "host_bound: where the device waits for the host, a link costs nothing until it takes longer "
    "than that wait; a larger --batch shows what it costs a busy device"
)
_NOTES = {
    "exposed": "exposed: the part of communication that compute waited for",
    "simulation off by": (
        "simulation off by: event simulation over the step's own trace against the step as it ran; "
        f"over {DISAGREES_FRAC * 100:.0f} % the two disagree"
    ),
    "with contention": (
        "with contention: median step when communication also takes compute units and memory "
        "traffic; it is part of the bracket"
    ),
    "with stragglers": (
        "with stragglers: expected step when every device draws its compute from the measured "
        "steps and all wait for the slowest"
    ),
}
"""What a column is, where its head does not say it all."""
_Columns = dict[str, Callable[[Trials], AnyCell]]
_RECOVERED = (
    "recovered: share of the time that this link costs over the fastest one, both without the "
    "mitigation, which is gone with it"
)
_TIME_ONLY = "time only: what it does to learning needs real ranks"


def link_grids(runs: Sequence[Trials], *, has_model: bool = True) -> list[Grid]:
    """Every table that these runs fill; none when all of them are one real device.

    `has_model` adds what stands behind the modelled times.
    """
    params = swept_among(runs)
    said: set[str] = set()
    grids = []
    for group in _groups(runs):
        for grid in _tables(group, params, has_model=has_model):
            if grid.rows:
                # A note stands under the first table that it concerns.
                new = tuple(note for note in grid.notes if note not in said)
                said.update(new)
                grids.append(replace(grid, notes=new))
    hidden = len(grids) - MAX_GRIDS
    if hidden <= 0:
        return grids
    note = f"{hidden + 1} further tables are not shown; the CSV has all rows"
    *shown, last = grids[: MAX_GRIDS - 1]
    return [*shown, replace(last, notes=(*last.notes, note))]


def swept_among(runs: Sequence[Trials]) -> list[str]:
    """Parameters that tell runs of one workload apart."""
    return differing(run.first for run in runs)


def workload_title(run: Trials, params: Sequence[str]) -> str:
    """Workload with its settings, without mode, devices and link."""
    return title_of(run.first, shown=(*PROGRAM, *params))


def _groups(runs: Sequence[Trials]) -> list[list[Trials]]:
    """Runs of one workload that were spread the same way, with one device on the same terms.

    Modes share a table, which says the mode of each line.
    """
    groups: dict[tuple[str, ...], list[Trials]] = {}
    for run in runs:
        if run.is_wide:
            key = (*run.terms(but=LAYOUT), run.text("parallel"))
            groups.setdefault(key, []).append(run)
    alone = [run for run in runs if not run.is_wide]
    return [
        [*(one for one in alone if one.terms(but=LAYOUT) == key[:-1]), *group]
        for key, group in groups.items()
    ]


def _tables(group: Sequence[Trials], params: Sequence[str], *, has_model: bool) -> list[Grid]:
    wide = sorted((run for run in group if run.is_wide), key=_place)
    parallel = str(wide[0].first.get("parallel") or "")
    parts = (workload_title(wide[0], params), parallel, wide[0].file)
    name = ", ".join(part for part in parts if part)
    return [
        _step_grid(wide, name=name),
        _time_grid(wide, group=group, name=name),
        *([_model_grid(wide, name=name)] if has_model else []),
        _mitigation_grid(find_mitigated(wide), name=name),
        _scaling_grid(families(group), group=group, name=name),
    ]


def _place(run: Trials) -> tuple[int, int, str, float, str]:
    mode = MODES.index(run.mode) if run.mode in MODES else len(MODES)
    layout = "".join(run.facts(("layout",)))
    mitigations = mitigations_of(run.first)
    return mode, run.num_devices, layout + mitigations, run.mean("comm_total_ms") or 0.0, run.link


def _who(run: Trials) -> tuple[AnyCell, ...]:
    """Cells that say which run a line is; under `_WHO`."""
    layout = str(run.first.get("layout") or "")
    return (
        run.link,
        cells.mode(run.mode),
        cells.count(run.num_devices),
        layout if " x " in layout else "",
        mitigations_of(run.first),
    )


def _step_grid(runs: Sequence[Trials], *, name: str) -> Grid:
    fastest = fastest_links(runs)
    leaders = {id(run) for run in fastest.values()}
    rows = []
    for run in runs:
        found = slowdown(run, fastest=fastest)
        over: AnyCell = "fastest" if id(run) in leaders else ""
        ends: AnyCell = ""
        if found is not None:
            over = cells.change(found.ratio.value, ends=found.ratio.interval)
            ends = cells.change_span(found.ends, beside=found.ratio.value)
        step, bracket = figure(run.step_s, seconds), cells.span(run.step_ends_s, seconds)
        rows.append((*_who(run), step, bracket, over, ends, trials_text(run.rows)))
    notes = {
        _VIRTUAL: any(run.mode == "emulated" for run in runs),
        _PAIRED: any(over_compute(run) for run in runs),
        _BRACKET: any(run.step_ends_s for run in runs),
        _MEAN: any(run.shows_mean for run in runs),
        _HOST_BOUND: any(map(_is_host_bound, runs)),
    }
    return Grid(
        heads=(*_WHO, "step [95 %]", "bracket", "slower [95 %]", "its bracket", "trials"),
        rows=rows,
        title=f"Links: {name}",
        notes=tuple(note for note, is_true in notes.items() if is_true),
        names=(*_NAMES, "trials"),
        spare=("trials", "its bracket", "bracket"),
    )


def _time_grid(runs: Sequence[Trials], *, group: Sequence[Trials], name: str) -> Grid:
    """Compute, communication and what of it shows; how near that is to perfect scaling."""
    singles = single_runs(group)
    columns: _Columns = {
        "compute": lambda run: _ms(run, "compute_step_ms"),
        "exposed": lambda run: _ms(run, "comm_exposed_ms"),
        "communication [band]": _communication,
        "overlap": lambda run: run.word("overlap"),
        "efficiency [95 %]": lambda run: _efficiency(efficiency(run, singles=singles)),
        "efficiency of": lambda run: _against(efficiency(run, singles=singles)),
    }
    grid = _grid(f"Where a step goes: {name}", runs, columns=columns)
    return replace(grid, spare=("overlap", "communication [band]"))


def _model_grid(runs: Sequence[Trials], *, name: str) -> Grid:
    """What the model says beside the run: bytes, where times come from, simulation, stragglers."""
    columns: _Columns = {
        "bytes/step": lambda run: quantity(run.mean("comm_bytes"), num_bytes),
        "link's times by": lambda run: run.word("link_method"),
        "simulation off by": _disagreement,
        "with contention": _contended,
        "with stragglers": lambda run: _ms(run, "straggler_step_ms"),
        "bubble": lambda run: cells.share(run.mean("bubble_frac")),
    }
    return _grid(f"Behind the model: {name}", runs, columns=columns)


def _grid(title: str, runs: Sequence[Trials], *, columns: _Columns) -> Grid:
    """One line a run; without lines when they would say nothing but who they are."""
    found = [[cell(run) for cell in columns.values()] for run in runs]
    rows = [(*_who(run), *reported) for run, reported in zip(runs, found, strict=True)]
    return _noted(
        Grid(
            heads=(*_WHO, *columns),
            rows=rows if any(map(any, found)) else [],
            title=title,
            names=(*_NAMES, "efficiency of"),
        )
    )


def _noted(grid: Grid) -> Grid:
    """The table with the notes on those of its columns that say something."""
    grid = grid.filled()
    notes = [note for head, note in _NOTES.items() if head in grid.heads]
    if "efficiency of" in grid.heads:
        against = {row[grid.heads.index("efficiency of")] for row in grid.rows}
        notes += [note for kind, note in _AGAINST.items() if kind in against]
    return replace(grid, notes=(*notes, *grid.notes))


def _mitigation_grid(found: Sequence[Mitigated], *, name: str) -> Grid:
    """Time with each mitigation against without, and what it recovers of the slowdown."""
    rows = [
        (
            *_who(one.run),
            cells.change(one.change.value, ends=one.change.interval),
            _recovered(one),
            trials_text(one.run.rows),
        )
        for one in found
    ]
    heads = (*_WHO, "time/item over without [95 %]", "recovered [95 %]", "trials")
    notes = (_RECOVERED, _TIME_ONLY)
    title = f"Workarounds: {name}"
    return Grid(heads=heads, rows=rows, title=title, notes=notes, names=(*_NAMES, "trials"))


def _scaling_grid(found: Sequence[Sequence[Trials]], *, group: Sequence[Trials], name: str) -> Grid:
    """Speed and efficiency of each family over its numbers of devices."""
    singles = single_runs(group)
    in_families = {id(run) for family in found for run in family}
    # One device of another mode is shown, and nothing is divided by it.
    beside = [run for run in group if not run.is_wide and id(run) not in in_families]
    rows = []
    for family in [*([[run] for run in beside] if found else []), *found]:
        for run in family:
            reached = efficiency(run, singles=singles)
            _, mode, devices, layout, mitigations = _who(run)
            if run.num_devices == 1:
                mitigations = mitigations_of(family[-1].first)
            exposed = run.estimate("comm_exposed_ms", over="step_median_ms")
            unit = f"{run.first.get('items_unit') or 'item'}/s"
            rows.append(
                (
                    family[-1].link,
                    mode,
                    devices,
                    layout,
                    mitigations,
                    figure(run.step_s, seconds),
                    cells.span(run.step_ends_s, seconds),
                    figure(run.estimate("throughput_per_s"), cells.of(unit)),
                    _efficiency(reached),
                    _against(reached),
                    cells.share(None if exposed is None else exposed.value),
                    _ms(run, "straggler_step_ms"),
                )
            )
    heads = (*_WHO, "step [95 %]", "bracket", "all devices [95 %]", "efficiency [95 %]",
             "efficiency of", "exposed share", "with stragglers")  # fmt: skip
    grid = Grid(
        heads=heads,
        rows=rows,
        title=f"Scaling over devices: {name}",
        names=(*_NAMES, "efficiency of"),
        spare=("with stragglers", "exposed share", "bracket", "step [95 %]"),
    )
    return _noted(grid)


def _is_host_bound(run: Trials) -> bool:
    """Whether in any trial the device waited for the host in most steps."""
    return any("host_bound" in str(row.get("reasons") or "").split(";") for row in run.rows)


def _ms(run: Trials, column: str) -> AnyCell:
    """Mean of a column in milliseconds, with a unit that suits it."""
    value_ms = run.mean(column)
    return quantity(None if value_ms is None else value_ms * 1e-3, seconds)


def _communication(run: Trials) -> AnyCell:
    low_ms, high_ms = run.mean("comm_low_ms"), run.mean("comm_high_ms")
    total_ms = run.mean("comm_total_ms")
    if total_ms is None or low_ms is None or high_ms is None:
        return _ms(run, "comm_total_ms")
    return quantity(total_ms * 1e-3, seconds, ends=(low_ms * 1e-3, high_ms * 1e-3))


def _contended(run: Trials) -> AnyCell:
    reported, units = _ms(run, "contended_step_ms"), run.mean("contention_units")
    if not isinstance(reported, Cell) or not units:
        return reported
    moved = run.mean("contention_moved_frac")
    traffic = ""
    if moved is not None and moved <= _ENOUGH_MOVED:
        traffic = f", {cells.text_of(cells.share(moved))} of its traffic"
    return replace(reported, aside=f"({units:.0f} units{traffic})")


def _disagreement(run: Trials) -> AnyCell:
    error = run.mean("simulated_error_frac")
    if error is None:
        return ""
    aside = "disagrees" if abs(error) > DISAGREES_FRAC else ""
    return Cell(text=f"{error * 100.0:+.1f} %", aside=aside, key=error)


def _recovered(one: Mitigated) -> AnyCell:
    found = one.recovered
    if found is None:
        return one.why_not
    return quantity(found.share, percent, ends=cells.ends_of(found.low, found.high))


def _efficiency(found: Efficiency | None) -> AnyCell:
    return "" if found is None else figure(found.share, percent)


def _against(found: Efficiency | None) -> AnyCell:
    """What an efficiency is a share of."""
    return "" if found is None else found.against
