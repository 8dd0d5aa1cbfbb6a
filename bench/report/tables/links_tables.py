"""What the links cost, as tables: per workload and way of spreading it.

Each table is there only where it has a line: step and slowdown by link, speed and efficiency by
number of devices, what stands behind the model, and what mitigations win back. The mode is a badge
on every line, and no ratio crosses it. Every modelled step stands with its bracket. Losses are not
shown: those of virtual ranks would be made up.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.analysis import scaling
from bench.analysis.trials.configuration import LAYOUT, Trials, grouped
from bench.analysis.trials.titles import PROGRAM, differing, mitigations_of, title_of
from bench.core.nouns import MODES
from bench.core.units import counted
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell, Cell
from bench.report.tables.grid import Grid
from bench.report.tables.run_table import Columns, trials_text

MAX_GRIDS = 24
"""Tables at once; further ones are counted."""
DISAGREES_FRAC = 0.03
"""Over this, simulation and emulation of one trace disagree, as the row's reason says too."""
_ENOUGH_MOVED = 0.95
"""Below this share of its memory traffic, contention slows less than it should."""
_WHO: Columns = {
    "link": lambda run: run.link,
    "mode": lambda run: run.mode if run.mode == "real" else Cell(mode=run.mode),
    "devices": lambda run: cells.quantity(run.num_devices),
    "layout": lambda run: run.text("layout") if " x " in run.text("layout") else "",
    "with": lambda run: mitigations_of(run.first),
}
"""Which run a line is."""
_NAMES = ("devices", "layout", "with", "trials")
_MEANT = {
    "[emulated]": "emulated: one device computes for real; the link and the other devices are "
    "modelled",
    "[simulated]": "simulated: one device's compute, recorded; what it sends is replayed over a "
    "model of the link",
    "bracket": "bracket: from the fast end of the link's error band without contention to its slow "
    "end, on a GPU with full contention; that of a slowdown has both links at the same end",
    "exposed": "exposed: the part of communication that compute waited for",
    "loader": "loader: the wait for the next batch, as one device alone has it; with compute and "
    "exposed it is the mean step",
    "(simulated)": "(simulated): the parts are of the step's simulation, over "
    f"{DISAGREES_FRAC * 100:.0f} % from the step as it ran",
    "of one device [95 %]": "of one device: efficiency, items per second and device over those of "
    "one device",
    "of compute [95 %]": "of compute: efficiency, the step without communication over the whole "
    "step, because one device was not measured in the same mode; what smaller pieces of work lose "
    "is not in it",
    "simulation off by": "simulation off by: event simulation over the step's own trace against "
    f"the step as it ran; over {DISAGREES_FRAC * 100:.0f} % the two disagree",
    "with contention": "with contention: median step when communication also takes compute units "
    "and memory traffic; it is part of the bracket",
    "with stragglers": "with stragglers: expected step when every device draws its compute from "
    "the measured steps and all wait for the slowest",
    "recovered [95 %]": "recovered: share of the time that this link costs over the fastest one, "
    "both without the mitigation, which is gone with it; time only: what it does to learning needs "
    "real ranks",
}
"""What a head or a cell means, where it does not say it all."""
_MEANT_OF_RUN: dict[str, Callable[[Trials], object]] = {
    "slower: than over the fastest link, by each trial's step over the same steps without "
    "communication, so that how fast the machine was in a trial cancels": scaling.over_compute,
    "with a mitigation the step is the mean, since some steps may send nothing": lambda run: (
        run.shows_mean
    ),
    "host_bound: where the device waits for the host, a link costs nothing until it takes longer "
    "than that wait; a larger --batch shows what it costs a busy device": lambda run: any(
        "host_bound" in str(row.get("reasons") or "").split(";") for row in run.rows
    ),
}
"""What a reader of the first table must know where it is so for any run."""


def link_grids(runs: Sequence[Trials], *, has_model: bool = True) -> list[Grid]:
    """Every table that these runs fill; none when all of them are one real device.

    `has_model` adds what stands behind the modelled times.
    """
    params = differing(run.first for run in runs)
    groups = _groups(runs)
    tables = (grid for one in groups for grid in _tables(one, params, has_model=has_model))
    found = [grid for grid in tables if grid.rows]
    grids = []
    said: set[str] = set()
    for grid in found[:MAX_GRIDS]:
        # A note stands under the first table that it concerns.
        grids.append(replace(grid, notes=tuple(note for note in grid.notes if note not in said)))
        said.update(grid.notes)
    if hidden := len(found) - len(grids):
        note = f"{counted(hidden, 'further table')} not shown; the CSV has all rows"
        grids[-1] = replace(grids[-1], notes=(*grids[-1].notes, note))
    return grids


def workload_title(run: Trials, params: Sequence[str]) -> str:
    """Workload with its settings, without mode, devices and link."""
    return title_of(run.first, shown=(*PROGRAM, *params))


def _groups(runs: Sequence[Trials]) -> list[list[Trials]]:
    """Runs of one workload that were spread the same way, with one device on the same terms.

    Modes share a table, which says the mode of each line.
    """
    wide = (run for run in runs if run.is_wide)
    groups = grouped(wide, lambda run: (*run.terms(but=LAYOUT), run.text("parallel")))
    alone = [run for run in runs if not run.is_wide]
    return [
        [*(one for one in alone if one.terms(but=LAYOUT) == key[:-1]), *group]
        for key, group in groups.items()
    ]


def _tables(group: Sequence[Trials], params: Sequence[str], *, has_model: bool) -> list[Grid]:
    wide = sorted((run for run in group if run.is_wide), key=_place)
    first = wide[0]
    parts = (workload_title(first, params), first.text("parallel"), first.one_device, first.file)
    name = ", ".join(part for part in parts if part)
    return [
        _step_grid(wide, name=name),
        _speed_grid(wide, group=group, name=name),
        *([_model_grid(wide, name=name)] if has_model else []),
        _mitigation_grid(scaling.find_mitigated(wide), name=name),
    ]


def _place(run: Trials) -> tuple[int, int, str, float, str]:
    layout = run.text("layout") + mitigations_of(run.first)
    return _mode(run), run.num_devices, layout, run.mean("comm_total_ms") or 0.0, run.link


def _mode(run: Trials) -> int:
    return MODES.index(run.mode) if run.mode in MODES else len(MODES)


def _grid(
    title: str, runs: Sequence[Trials], columns: Columns, *, spare: tuple[str, ...] = ()
) -> Grid:
    """One line a run, with notes; without lines where nothing but who they are would be said."""
    grid = Grid.of(runs, {**_WHO, **columns}, title=title, names=_NAMES, spare=spare)
    if not any(any(row[len(_WHO) :]) for row in grid.rows):
        return replace(grid, rows=[])
    seen = {*grid.filled().heads, *(cells.text_of(row[1]) for row in grid.rows)}
    seen.update(cell.aside for row in grid.rows for cell in row if isinstance(cell, Cell))
    return replace(grid, notes=tuple(note for word, note in _MEANT.items() if word in seen))


def _step_grid(runs: Sequence[Trials], *, name: str) -> Grid:
    """Step over each link, and how much slower that is than over the fastest one."""
    fastest = scaling.fastest_links(runs)
    leaders = set(fastest.values())
    found = {run: scaling.slowdown(run, fastest=fastest) for run in runs}

    def slower(run: Trials) -> AnyCell:
        if (one := found[run]) is None:
            return "fastest" if run in leaders else ""
        return cells.change(one.ratio.value, ends=one.ratio.interval)

    def bracket(run: Trials) -> AnyCell:
        one = found[run]
        return "" if one is None else cells.change_span(one.ends, beside=one.ratio.value)

    columns: Columns = {
        "step [95 %]": lambda run: cells.figure(run.step_s, cells.seconds),
        "bracket": lambda run: cells.span(run.step_ends_s, cells.seconds),
        "slower [95 %]": slower,
        "its bracket": bracket,
        "trials": lambda run: trials_text(run.rows),
    }
    grid = _grid(f"Links: {name}", runs, columns, spare=("its bracket", "bracket", "trials"))
    also = tuple(note for note, is_so in _MEANT_OF_RUN.items() if any(map(is_so, runs)))
    return replace(grid, notes=(*grid.notes, *also))


def _speed_grid(runs: Sequence[Trials], *, group: Sequence[Trials], name: str) -> Grid:
    """Items per second of all devices, where a step goes, how near that is to perfect scaling.

    Over each link the numbers of devices follow one another. One device leads, also one of another
    mode, by which nothing is divided.
    """
    singles = scaling.single_runs(group)
    found = {run: scaling.efficiency(run, singles=singles) for run in group}
    links = list(dict.fromkeys(run.link for run in runs))

    def share(run: Trials, against: str) -> AnyCell:
        one = found[run]
        return cells.figure(one[0], cells.percent) if one and one[1] == against else ""

    def place(run: Trials) -> tuple[int, str, int, int]:
        return _mode(run), mitigations_of(run.first), links.index(run.link), run.num_devices

    columns: Columns = {
        "all devices [95 %]": lambda run: cells.figure(
            run.estimate("throughput_per_s"), cells.of(f"{run.first.get('items_unit') or 'item'}/s")
        ),
        "compute": lambda run: _part(run, "compute"),
        "loader": lambda run: _part(run, "loader"),
        "exposed": lambda run: _part(run, "exposed"),
        "communication [band]": _communication,
        "overlap": lambda run: run.word("overlap"),
        "of one device [95 %]": lambda run: share(run, "one device"),
        "of compute [95 %]": lambda run: share(run, "compute"),
    }
    alone = [run for run in group if not run.is_wide]
    spare = ("overlap", "communication [band]", "compute", "loader", "exposed")
    return _grid(
        f"Speed and efficiency: {name}", [*alone, *sorted(runs, key=place)], columns, spare=spare
    )


def _model_grid(runs: Sequence[Trials], *, name: str) -> Grid:
    """What the model says beside the run: bytes, where times come from, simulation, stragglers."""
    columns: Columns = {
        "bytes/step": lambda run: cells.quantity(run.mean("comm_bytes"), cells.num_bytes),
        "link's times by": lambda run: run.word("link_method"),
        "simulation off by": _disagreement,
        "with contention": _contended,
        "with stragglers": lambda run: _ms(run, "straggler_step_ms"),
        "bubble": lambda run: cells.share(run.mean("bubble_frac")),
    }
    return _grid(f"Behind the model: {name}", runs, columns)


def _mitigation_grid(found: Sequence[scaling.Mitigated], *, name: str) -> Grid:
    """Time with each mitigation against without, and what it recovers of the slowdown."""
    mitigated = {one.run: one for one in found}

    def recovered(run: Trials) -> AnyCell:
        one = mitigated[run]
        return one.why_not or cells.quantity(one.recovered, cells.percent, ends=one.ends)

    columns: Columns = {
        "time/item over without [95 %]": lambda run: cells.change(
            mitigated[run].change.value, ends=mitigated[run].change.interval
        ),
        "recovered [95 %]": recovered,
        "trials": lambda run: trials_text(run.rows),
    }
    return _grid(f"Workarounds: {name}", list(mitigated), columns)


def _ms(run: Trials, column: str) -> AnyCell:
    """Mean of a column in milliseconds, with a unit that suits it."""
    value_ms = run.mean(column)
    return cells.quantity(None if value_ms is None else value_ms * 1e-3, cells.seconds)


def _part(run: Trials, name: str) -> AnyCell:
    """A part of the step, mean over the trials that have it; blank where none has."""
    trials = [parts for row in run.used if (parts := scaling.step_parts_ms(row))]
    known = [parts[name] for parts in trials if name in parts]
    if not known:
        return ""
    # Without a loader's part no batch was waited for.
    mean_ms = sum(known) / len(trials if name == "loader" else known)
    cell = cells.quantity(mean_ms * 1e-3, cells.seconds)
    error = run.mean("simulated_error_frac")
    if name == "compute" and isinstance(cell, Cell) and abs(error or 0.0) > DISAGREES_FRAC:
        return replace(cell, aside="(simulated)")
    return cell


def _communication(run: Trials) -> AnyCell:
    low_ms, high_ms = run.mean("comm_low_ms"), run.mean("comm_high_ms")
    total_ms = run.mean("comm_total_ms")
    if total_ms is None or low_ms is None or high_ms is None:
        return _ms(run, "comm_total_ms")
    return cells.quantity(total_ms * 1e-3, cells.seconds, ends=(low_ms * 1e-3, high_ms * 1e-3))


def _contended(run: Trials) -> AnyCell:
    reported, units = _ms(run, "contended_step_ms"), run.mean("contention_units")
    if not isinstance(reported, Cell) or not units:
        return reported
    moved = run.mean("contention_moved_frac")
    traffic = ""
    if moved is not None and moved <= _ENOUGH_MOVED:
        traffic = f", {cells.text_of(cells.share(moved))} of its traffic"
    return replace(reported, aside=f"({counted(round(units), 'unit')}{traffic})")


def _disagreement(run: Trials) -> AnyCell:
    error = run.mean("simulated_error_frac")
    if error is None:
        return ""
    aside = "disagrees" if abs(error) > DISAGREES_FRAC else ""
    return Cell(text=f"{error * 100.0:+.1f} %", aside=aside, key=error)
