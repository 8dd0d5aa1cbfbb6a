"""How fast: throughput, steps and latency, warm-up, and energy.

Each section is a table of the configurations shown and the panels drawn from the same rows; one
without a figure to show is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.core.units import format_duration, format_number, format_si
from bench.report.page.content import Part, Prose, Section, without_blank_columns
from bench.report.page.evidence import Evidence, Shown
from bench.report.plots.plots_samples import spread_plots, steps_of, trace_plots
from bench.report.plots.plots_speed import (
    energy_plots,
    in_figures,
    mean_of,
    step_plots,
    throughput_plots,
)
from bench.report.plots.sweep_rows import is_wide
from bench.report.tables.grid import Grid
from bench.report.tables.run_table import (
    COLUMNS,
    Line,
    is_virtual,
    swept_params,
    title_of,
    trials_text,
)

Cells = Mapping[str, Callable[[Shown], str]]


def results(evidence: Evidence) -> Section:
    """The table of configurations, with throughput drawn by device."""
    shown = evidence.shown
    cells: dict[str, Callable[[Shown], str]] = {
        f"{head}>": _of_line(cell) for head, cell in COLUMNS
    }
    # Several devices and modelled links have a section of their own.
    alone = [one for one in shown if not is_wide(one)]
    plots = throughput_plots(alone) or throughput_plots(shown)
    parts: list[Part] = [plots] if plots else [Prose(lines=("No usable trial has a throughput.",))]
    grid = _grid(evidence, cells=cells, title="All configurations, mean over usable trials")
    parts.append(grid)
    return Section(name="throughput", title="Throughput by device", parts=tuple(parts))


def _of_line(cell: Callable[[Line], str]) -> Callable[[Shown], str]:
    # The terminal's table breaks some cells into two lines.
    return lambda one: cell(one.line).replace("\n", " ")


def _grid(
    evidence: Evidence,
    *,
    cells: Cells,
    title: str = "",
    notes: tuple[str, ...] = (),
    has_any: Sequence[str] = (),
) -> Grid:
    """One line per configuration that has any of the columns named, blank columns left out."""
    shown = [
        one
        for one in evidence.shown
        if not has_any or any(one.line.values(column) for column in has_any)
    ]
    params = swept_params([one.line for one in shown])
    rows = [
        (
            title_of(one.line.first, shown_params=params),
            one.device,
            one.file,
            *(cell(one) for cell in cells.values()),
            trials_text(one.line.rows),
        )
        for one in shown
    ]
    if evidence.num_hidden and rows:
        hidden = f"{evidence.num_hidden} further configurations are not shown; the CSV has them all"
        notes = (*notes, hidden)
    heads = ("workload", "device", "file", *cells, "trials")
    return without_blank_columns(Grid(heads=heads, rows=rows, title=title, notes=notes))


def _number(column: str, form: Callable[[float], str]) -> Callable[[Shown], str]:
    def cell(one: Shown) -> str:
        value = one.line.mean(column)
        return "" if value is None else form(value)

    return cell


def _ms(column: str) -> Callable[[Shown], str]:
    return _number(column, lambda value_ms: format_duration(value_ms / 1e3))


def _s(column: str) -> Callable[[Shown], str]:
    return _number(column, format_duration)


def _percent(column: str) -> Callable[[Shown], str]:
    return _number(column, lambda share: f"{share * 100:.3g} %")


def _is_steady(one: Shown) -> str:
    found = [row["warmup_converged"] for row in one.line.usable if "warmup_converged" in row]
    known = [bool(value) for value in found if value is not None]
    return "" if not known else "yes" if all(known) else f"{sum(known)} of {len(known)}"


def latency(evidence: Evidence) -> Section | None:
    """Latency percentiles, and how step times are spread."""
    cells: Cells = {
        "p50>": _ms("lat_p50_ms"),
        "p90>": _ms("lat_p90_ms"),
        "p99>": _ms("lat_p99_ms"),
        "first token>": _ms("ttft_ms"),
        "per token>": _ms("tpot_ms"),
        "prefill>": _number("prefill_tok_per_s", lambda rate: format_si(rate, "token/s")),
        "decode>": _number("decode_tok_per_s", lambda rate: format_si(rate, "token/s")),
        "data wait>": _percent("data_wait_frac"),
    }
    note = "p90 and p99 are upper bounds with 99 % confidence, blank where too few steps ran"
    wanted = ("lat_p50_ms", "ttft_ms", "tpot_ms", "step_median_ms")
    grid = _grid(evidence, cells=cells, notes=(note,), has_any=wanted)
    alone = [one for one in evidence.shown if not is_wide(one)]
    plots = step_plots(alone) or step_plots(evidence.shown)
    if not grid.rows or plots is None:
        return None
    return Section(name="latency", title="Latency and steps", parts=(plots, grid))


def steps(evidence: Evidence) -> Section | None:
    """Warm-up and step-time traces from the samples, and what starting costs."""
    samples, notes = evidence.samples()
    found = steps_of(evidence.shown, samples, labels=evidence.labels)
    cells: Cells = {
        "import>": _s("import_s"),
        "build>": _s("build_s"),
        "to device>": _s("transfer_s"),
        "first step>": _s("first_step_s"),
        "compile>": _s("compile_s"),
        "warm-up>": _s("warmup_s"),
        "warm-up steps>": _number("warmup_steps", format_number),
        "steady": _is_steady,
    }
    wanted = ("warmup_s", "warmup_steps", "first_step_s", "build_s")
    grid = _grid(evidence, cells=cells, title="What starting costs", has_any=wanted)
    drawn = [plots for plots in (trace_plots(found), spread_plots(found)) if plots is not None]
    if not grid.rows and not drawn:
        return None
    parts: list[Part] = [*drawn, *([grid] if grid.rows else [])]
    parts += [Prose(lines=tuple(notes), is_list=True)] if notes else []
    return Section(name="steps", title="Warm-up and every step", parts=tuple(parts))


def energy(evidence: Evidence) -> Section | None:
    """Energy per item; absent where nothing measured it."""
    shown = [one for one in evidence.shown if not is_virtual(one.line.first)]
    alone = [one for one in shown if not is_wide(one)]
    plots = energy_plots(alone) or energy_plots(shown)
    if plots is None:
        return None
    cells: Cells = {
        "energy/item [95 % CI]>": _energy,
        "mean power>": _number("power_mean_w", lambda watts: f"{format_number(watts)} W"),
        "idle power>": _number("idle_power_w", lambda watts: f"{format_number(watts)} W"),
        "power limit>": _number("power_limit_w", lambda watts: f"{format_number(watts)} W"),
        "hottest>": _number("temp_max_c", lambda celsius: f"{celsius:.0f} C"),
        "throttled>": _percent("throttle_frac"),
        "covers": lambda one: _word(one, "energy_scope"),
        "source": lambda one: _word(one, "energy_source"),
    }
    note = "idle power is included; figures of different scope (gpu, package, soc) do not compare"
    grid = _grid(evidence, cells=cells, notes=(note,), has_any=("energy_per_item_j",))
    return Section(name="energy", title="Energy", parts=(plots, grid))


def _energy(one: Shown) -> str:
    value = None if is_virtual(one.line.first) else mean_of(one, "energy_per_item_j")
    return "" if value is None else in_figures(value, unit="J")


def _word(one: Shown, column: str) -> str:
    words = dict.fromkeys(str(row[column]) for row in one.line.usable if row.get(column))
    return ", ".join(words)
