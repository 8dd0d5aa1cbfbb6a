"""How fast: throughput, steps and latency, warm-up, and energy.

Each section is a table of the configurations shown and the panels drawn from the same rows; one
without a figure to show is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.analysis.trials.configuration import Trials, is_virtual
from bench.report.page.content import Part, Prose, Section
from bench.report.page.evidence import Evidence
from bench.report.plots.plots_samples import spread_plots, steps_of, trace_plots
from bench.report.plots.plots_speed import energy_plots, step_plots, throughput_plots
from bench.report.tables.cells import (
    AnyCell,
    Scale,
    bare,
    figure,
    of,
    percent,
    plain_unit,
    quantity,
    seconds,
)
from bench.report.tables.grid import Grid
from bench.report.tables.run_table import COLUMNS, Columns, configuration_grid

_PLACE: Columns = {"device": lambda one: one.device, "file": lambda one: one.file}


def results(evidence: Evidence) -> Section:
    """The table of configurations, with throughput drawn by device."""
    plots = throughput_plots(evidence.shown)
    parts: list[Part] = [plots] if plots else [Prose(lines=("No usable trial has a throughput.",))]
    title = "All configurations, mean over usable trials"
    parts.append(_grid(evidence, columns=COLUMNS, title=title))
    return Section(name="throughput", title="Throughput by device", parts=tuple(parts))


def _grid(
    evidence: Evidence,
    *,
    columns: Columns,
    title: str = "",
    notes: tuple[str, ...] = (),
    has_any: Sequence[str] = (),
) -> Grid:
    """One line per configuration that has any of the columns named."""
    shown = [
        one
        for one in evidence.shown
        if not has_any or any(one.values(column) for column in has_any)
    ]
    if evidence.num_hidden and shown:
        hidden = f"{evidence.num_hidden} further configurations are not shown; the CSV has them all"
        notes = (*notes, hidden)
    grid = configuration_grid(shown, columns={**_PLACE, **columns})
    return replace(grid, title=title, notes=notes)


def _mean(column: str, scale: Scale = bare, *, factor: float = 1.0) -> Callable[[Trials], AnyCell]:
    """Mean over usable trials; `factor` makes base units of it."""

    def cell(one: Trials) -> AnyCell:
        value = one.mean(column)
        return "" if value is None else quantity(value * factor, scale)

    return cell


def _ms(column: str) -> Callable[[Trials], AnyCell]:
    return _mean(column, seconds, factor=1e-3)


def _is_steady(one: Trials) -> str:
    found = [row["warmup_converged"] for row in one.used if "warmup_converged" in row]
    known = [bool(value) for value in found if value is not None]
    return "" if not known else "yes" if all(known) else f"{sum(known)} of {len(known)}"


def latency(evidence: Evidence) -> Section | None:
    """Latency percentiles, and how step times are spread."""
    columns: Columns = {
        "p50": _ms("lat_p50_ms"),
        "p90": _ms("lat_p90_ms"),
        "p99": _ms("lat_p99_ms"),
        "first token": _ms("ttft_ms"),
        "per token": _ms("tpot_ms"),
        "prefill": _mean("prefill_tok_per_s", of("token/s")),
        "decode": _mean("decode_tok_per_s", of("token/s")),
        "data wait": _mean("data_wait_frac", percent),
    }
    note = "p90 and p99 are upper bounds with 99 % confidence, blank where too few steps ran"
    wanted = ("lat_p50_ms", "ttft_ms", "tpot_ms", "step_median_ms")
    grid = _grid(evidence, columns=columns, notes=(note,), has_any=wanted)
    plots = step_plots(evidence.shown)
    if not grid.rows or plots is None:
        return None
    return Section(name="latency", title="Latency and steps", parts=(plots, grid))


def steps(evidence: Evidence) -> Section | None:
    """Warm-up and step-time traces from the samples, and what starting costs."""
    samples, notes = evidence.samples()
    found = steps_of(evidence.shown, samples, labels=evidence.labels)
    columns: Columns = {
        "import": _mean("import_s", seconds),
        "build": _mean("build_s", seconds),
        "to device": _mean("transfer_s", seconds),
        "first step": _mean("first_step_s", seconds),
        "compile": _mean("compile_s", seconds),
        "warm-up": _mean("warmup_s", seconds),
        "warm-up steps": _mean("warmup_steps"),
        "steady": _is_steady,
    }
    wanted = ("warmup_s", "warmup_steps", "first_step_s", "build_s")
    grid = _grid(evidence, columns=columns, title="What starting costs", has_any=wanted)
    drawn = [plots for plots in (trace_plots(found), spread_plots(found)) if plots is not None]
    if not grid.rows and not drawn:
        return None
    parts: list[Part] = [*drawn, *([grid] if grid.rows else [])]
    parts += [Prose(lines=tuple(notes), is_list=True)] if notes else []
    return Section(name="steps", title="Warm-up and every step", parts=tuple(parts))


def energy(evidence: Evidence) -> Section | None:
    """Energy per item; absent where nothing measured it."""
    plots = energy_plots([one for one in evidence.shown if not is_virtual(one.first)])
    if plots is None:
        return None
    columns: Columns = {
        "energy/item [95 %]": _energy,
        "mean power": _mean("power_mean_w", plain_unit("W")),
        "idle power": _mean("idle_power_w", plain_unit("W")),
        "power limit": _mean("power_limit_w", plain_unit("W")),
        "hottest": _mean("temp_max_c", plain_unit("C")),
        "throttled": _mean("throttle_frac", percent),
        "covers": lambda one: one.word("energy_scope"),
        "source": lambda one: one.word("energy_source"),
    }
    note = "idle power is included; figures of different scope (gpu, package, soc) do not compare"
    grid = _grid(evidence, columns=columns, notes=(note,), has_any=("energy_per_item_j",))
    return Section(name="energy", title="Energy", parts=(plots, grid))


def _energy(one: Trials) -> AnyCell:
    return "" if is_virtual(one.first) else figure(one.estimate("energy_per_item_j"), of("J"))
